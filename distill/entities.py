"""Names in IOB2 tags: `B-PER I-PER O` holds one, from its first word to its last."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

_TAG = re.compile(r"[BI]-(.+)")


def is_iob2(classes: Sequence[str]) -> bool:
    """Whether the classes are O and the beginnings and insides of kinds of names."""
    return any(name.startswith("B-") for name in classes) and all(
        name == "O" or _TAG.fullmatch(name) for name in classes
    )


def entity_counts(said: Tensor, gold: Tensor, classes: Sequence[str]) -> Tensor:
    """Return [N 3]: names found right, names found, names there are, in each row of tags [N W].

    Tags below 0 are no words. A name is right where first word, last word and kind are (Tjong Kim Sang and De Meulder
    2003). As their program does, an I- after another kind or after O begins a name: each word of a name has one.
    """
    words = gold >= 0
    own, wanted = (_names(torch.where(words, tags, -1), classes) for tags in (said, gold))
    right = (own[0] & wanted[0] & (own[1] == wanted[1]) & (own[2] == wanted[2])).sum(-1)
    return torch.stack([right, own[0].sum(-1), wanted[0].sum(-1)], -1).double()


def _names(tags: Tensor, classes: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return where names begin [N W] bool, what kind each word is in (−1: none), and where the name it is in ends."""
    kinds = {name: number for number, name in enumerate(dict.fromkeys(_kind(name) for name in classes))}
    outside = torch.tensor([*(kinds[_kind(name)] if name != "O" else -1 for name in classes), -1])
    first = torch.tensor([*(name.startswith("B-") for name in classes), False])
    kind, begins = outside.to(tags.device)[tags], first.to(tags.device)[tags]
    edge = torch.full_like(kind[:, :1], -1)
    starts = (kind >= 0) & (begins | (kind != torch.cat([edge, kind[:, :-1]], 1)))
    ends = (kind >= 0) & (torch.cat([starts[:, 1:], edge == -1], 1) | (kind != torch.cat([kind[:, 1:], edge], 1)))
    width = tags.shape[1]
    places = torch.where(ends, torch.arange(width, device=tags.device), width)
    return starts, kind, places.flip(1).cummin(1).values.flip(1)


def _kind(name: str) -> str:
    found = _TAG.fullmatch(name)
    return found[1] if found else ""
