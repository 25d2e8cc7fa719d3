"""Exactly what each method trains on each family, counted by hand from the sizes of the tiny models."""

from dataclasses import dataclass

import pytest

from distill.adapted_model import roles
from tests.helpers.adapted import CELLS, adapted

D, VOCABULARY = 16, 48
"""Width of all; in an attention too, queries, keys and values together have it."""


@dataclass(frozen=True)
class Has:
    """How many of each thing a tiny model of a family has."""

    norms: int
    """Parameters of its normalisations."""
    biases: int
    """Of its body's modules."""
    top: int
    """Of its uppermost layer, of the decoder's where there is one; without normalisations."""
    top_norms: int
    head: int = 0
    attentions: int = 2
    layers: int = 2
    """Feed-forward layers."""
    inside: int = 24
    """Their width."""
    ups: int = 1
    """Matrices into each."""
    fused: bool = False
    """One matrix makes queries, keys and values."""
    sides: int = 1
    """Kinds of attention: one, or of an encoder, of a decoder, and of the decoder over the encoder."""

    @property
    def query_value(self) -> tuple[int, int]:
        """How many matrices make queries and values, and how wide each one's output is."""
        return (self.attentions, 3 * D) if self.fused else (2 * self.attentions, D)


_BESIDE = {"attentions": 4, "layers": 3, "sides": 3}
_NORM, _ATTENTION = 2 * D, 4 * (D * D + D)
_FEED = (D * 24 + 24) + (24 * D + D)
_ENCODER = (2 * (4 * D + 24 + D + 2 * D) + D, _ATTENTION + _FEED, 2 * _NORM)
_DECODER = (2 * _ATTENTION + _FEED, 3 * _NORM)
FAMILIES = {
    "bert": Has(5 * _NORM, _ENCODER[0] + D, *_ENCODER[1:], head=2 * D + 2),  # with its pooler's bias
    **dict.fromkeys(("roberta", "distilbert"), Has(5 * _NORM, *_ENCODER, head=(D * D + D) + (2 * D + 2))),
    "t5": Has(9 * D, 0, 8 * D * D + 2 * D * 24 + 32 * 2, 3 * D, **_BESIDE),  # 32 distances for each of 2 heads
    "marian": Has(7 * _NORM, 4 * 4 * D + 3 * (24 + D) + 7 * D, *_DECODER, **_BESIDE),
    "bart": Has(9 * _NORM, 4 * 4 * D + 3 * (24 + D) + 9 * D, *_DECODER, **_BESIDE),
    "gpt2": Has(
        5 * _NORM,
        2 * (4 * D + 64 + D + 2 * D) + D,
        _ATTENTION + (D * 64 + 64) + (64 * D + D),
        2 * _NORM,
        inside=64,
        fused=True,
    ),
    "llama": Has(5 * D, 0, 4 * D * D + 3 * D * 24, 2 * D, ups=2),
}


def lora(has: Has, rank: int) -> int:
    count, out = has.query_value
    return count * rank * (D + out)


def network(size: int) -> int:
    """A bottleneck: two matrices with their biases."""
    return 2 * D * size + size + D


def prefix(has: Has, tokens: int, width: int) -> int:
    """One network a side, and its way out to the keys and values of each attention."""
    return has.sides * (tokens * D + D * width + width) + has.attentions * (width + 1) * 2 * D


def method(name: str, has: Has) -> int:
    """Parameters of a method itself, with the settings of `tests.helpers.adapted.METHODS`."""
    count, out = has.query_value
    sites = has.attentions + has.layers
    coupling = 2 * (2 * 8 * 4 + 4 + 8)  # two networks from half of the embeddings over 4 to the other half
    one_a_layer = ("Pfeiffer", "parallel", "parallel with norms", "stacked", "with embeddings")
    found = {
        **dict.fromkeys(("LoRA", "LoRA+", "rsLoRA", "PiSSA"), lora(has, 4)),
        "LoRA on all matrices": 2 * has.attentions * (4 * D + (2 if has.fused else 4) * D)
        + 2 * has.layers * (has.ups + 1) * (D + has.inside),
        "DoRA": lora(has, 4) + count * out,
        "AdaLoRA": lora(has, 4) + count * 4,
        "(IA)³": has.attentions * (3 if has.fused else 2) * D + has.layers * has.inside,
        "LN tuning": has.norms,
        "BitFit": has.biases,
        "top layers": 0,
        "prompt tuning": 4 * D,
        "P-tuning": 4 * D + (D * 8 + 8) + (8 * 8 + 8) + (8 * D + D),
        "prefix": prefix(has, 4, 8),
        "prefix, flat": has.attentions * 2 * 4 * D,
        **dict.fromkeys(("Houlsby", "AdapterDrop while training"), sites * network(4)),
        "Houlsby, invertible": sites * network(4) + coupling,
        "AdapterDrop": 2 * network(4),  # one layer keeps its own: the encoder's, where there are two sides
        **dict.fromkeys(one_a_layer, has.layers * network(4)),
        "Pfeiffer, invertible": has.layers * network(4) + coupling,
        "Compacter": sites * (2 * (D // 2 + 4) * 2 + 8 + D) + 2**3,  # the rule is one for all
        "mix and match": has.layers * network(8) + prefix(has, 3, 8),
        **dict.fromkeys(("experts", "experts beside the original"), (D + 1) * 2 + (D + 1) * 8 + (8 + 1) * D),
        "fusion": has.layers * (2 * (D * D + D) + D * D),
        "VeRA": count * (4 + out),
        "OFT": count * (D // 4) * 6,  # in blocks of 4, an angle for each pair
    }
    return found[name]


def beside(name: str, kind: str, has: Has) -> dict[str, int]:
    """What is trained whole beside it."""
    norms = {
        **dict.fromkeys(("Houlsby", "Houlsby, invertible", "Compacter", "parallel with norms"), has.norms),
        **dict.fromkeys(("AdapterDrop", "AdapterDrop while training"), has.norms),
        "top layers": has.top_norms,
    }
    if kind == "bart" and name == "Houlsby, invertible":
        norms[name] -= _NORM  # the one that the invertible part stands around
    others = {"top layers": has.top, "with embeddings": VOCABULARY * D}
    return {"head": has.head, "norms": norms.get(name, 0), "whole modules": others.get(name, 0)}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_as_many_parameters_train_as_the_papers_say(name, kind):
    found, has = roles(adapted(name, kind).model), FAMILIES[kind]
    del found["frozen"]
    assert found == {"method": method(name, has), **beside(name, kind, has)}
