"""The sizes of a model that is made here."""

from pydantic import PositiveInt

from configs.section import Section


class Sizes(Section):
    """How deep and wide a transformer is, in names that every architecture understands."""

    layers: PositiveInt = 4
    """Layers; of an encoder-decoder, of its encoder."""
    decoder_layers: PositiveInt | None = None
    """Layers of the decoder, of an encoder-decoder; none: as many as the encoder has."""
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    """Width of the feed-forward layers."""
    heads: PositiveInt
    options: dict[str, str | int | float | bool | None] = {}
    """Further keys of the architecture's own configuration."""
