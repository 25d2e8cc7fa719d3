"""What libraries say where weights cannot be read, in one line with the model's name."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from safetensors import SafetensorError
from transformers import PreTrainedModel

from distill.errors import ModelError
from distill.peers import is_of_others


@contextmanager
def loading(name: str, where: str) -> Iterator[None]:
    """Raise ModelError for weights that are damaged, or of another model. What is said of other processes stays as it
    is.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_of_others(error):
            raise
        raise ModelError(f"{where}: cannot load {name}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().splitlines()[0]


def check_body(model: PreTrainedModel, missing: Collection[str], where: str) -> None:
    """Raise ModelError, which begins with `where`, if weights of a model's body are missing: those of its head may be,
    a pooler's too.
    """
    # T5 has no part of its prefix's name: all of it is body
    body = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    wanting = [key for key in missing if key.startswith(body) and "pooler" not in key and "position_ids" not in key]
    if wanting:
        raise ModelError(f"{where} lacks weights: {', '.join(sorted(wanting)[:5])}")
