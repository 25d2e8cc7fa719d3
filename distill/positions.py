"""How many tokens a model has positions for."""

import math
from typing import Literal

from transformers import PretrainedConfig

_AFTER_PADDING = (
    *("camembert", "data2vec-text", "ibert", "lilt", "longformer", "luke", "markuplm", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Families that count positions from the padding token's number on: that many, and its own, hold no token."""


def positions(config: PretrainedConfig, side: Literal["encoder", "decoder"] = "encoder") -> float:
    """Return how many tokens what is read (`encoder`) or written (`decoder`) may have; ∞ where positions are relative
    or computed without a bound.
    """
    own = f"max_{side}_position_embeddings"  # LED's: it reads more than it writes
    found: int | None = getattr(config, own, None) or getattr(config, "max_position_embeddings", None)
    if found is None or found <= 0:  # XLNet says -1
        return math.inf
    return found - (config.pad_token_id or 0) - 1 if config.model_type in _AFTER_PADDING else found
