"""How likely a model finds a text that somebody else wrote."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distill.languages import encode_targets
from distill.models import Loaded
from distill.positions import positions
from teachers.text.sources import start_token

_ROWS = 64


@torch.inference_mode()
def forced_log_probs(
    model: Any, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], start: int
) -> list[Tensor]:
    """Return log p(yᵢ | y₁ … yᵢ₋₁, x) for each token of each target, fp32 [U] each, of an encoder-decoder.

    The decoder starts with the token `start`; an end token counts where a target has it.
    """
    pad, device = model.config.pad_token_id, model.device
    ids = _padded(sources, pad).to(device)
    wanted = _padded(targets, pad).to(device)
    first = wanted.new_full((len(wanted), 1), start)
    logits = model(
        input_ids=ids,
        attention_mask=_mask(sources, ids.shape[1]).to(device),
        decoder_input_ids=torch.cat([first, wanted[:, :-1]], 1),
    ).logits
    found = logits.float().log_softmax(-1).gather(-1, wanted[..., None])[..., 0].cpu()
    return [row[: len(target)] for row, target in zip(found, targets, strict=True)]


def mean_log_probs(loaded: Loaded, sources: Sequence[str], targets: Sequence[str]) -> list[float | None]:
    """Return the mean log p of a token of each target, end token included, given its source; of an encoder-decoder.
    None where it has no positions for one of the two: nothing is cut.
    """
    ids: list[list[int]] = loaded.tokenizer(list(sources), verbose=False)["input_ids"]
    wanted = encode_targets(loaded.tokenizer, targets)
    config, start = loaded.model.config, start_token(loaded.model, loaded.tokenizer)
    read, written = positions(config), positions(config, "decoder")
    fitting = [place for place in range(len(ids)) if len(ids[place]) <= read and len(wanted[place]) <= written]
    order = sorted(fitting, key=lambda place: len(ids[place]) + len(wanted[place]))
    found: list[float | None] = [None] * len(ids)
    for first in range(0, len(order), _ROWS):
        places = order[first : first + _ROWS]
        heard, said = [ids[place] for place in places], [wanted[place] for place in places]
        scored = forced_log_probs(loaded.model, heard, said, start)
        for place, log_probs in zip(places, scored, strict=True):
            found[place] = float(log_probs.mean())
    return found


def _padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def _mask(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
