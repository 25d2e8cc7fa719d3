"""An adapter's weights in its file and in the model it is put into: names, heads, ranks, vectors."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from distill.without import without

with without("bitsandbytes"):
    from peft import AdaLoraConfig, PeftConfig, PromptEncoderConfig, PromptTuningConfig

_MODEL = "base_model.model."
"""How the names of weights around modules of the model begin in an adapter's file."""


def with_head_of(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of an adapter with the model's head in place of their own, which need not fit: that of another
    task, or the way back to the vocabulary that came with a language. Only the head of the active adapter is used.
    """
    alone = model.base_model is model
    body = [name for name, _ in model.named_children()] if alone else [model.base_model_prefix]
    inside = tuple(f"{_MODEL}{name}." for name in body)
    state = {name.replace(".original_module.", "."): value for name, value in model.state_dict().items()}
    own = {f"{_MODEL}{name}": value for name, value in state.items()}
    heads = [key for key in weights if key.startswith(_MODEL) and not key.startswith(inside)]
    kept = {key: weight for key, weight in weights.items() if key not in heads}
    return kept | {key: own[key] for key in heads if key in own}


def named_for(model: PreTrainedModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their names in a model: what was learned without a head fits one with a head, and the reverse.

    A body stands under a name of its own in a model with a head (`bert.encoder…`), and under none alone (`encoder…`).
    """
    body = f"{_MODEL}{model.base_model_prefix}."
    if model.base_model is model:
        return {name.replace(body, _MODEL, 1): weight for name, weight in weights.items()}
    inside = tuple(f"{_MODEL}{name}." for name, _ in model.base_model.named_children())
    return {
        name.replace(_MODEL, body, 1) if name.startswith(inside) and not name.startswith(body) else name: weight
        for name, weight in weights.items()
    }


def hold_ranks(config: PeftConfig, model: PreTrainedModel, adapter: str) -> None:
    """Let AdaLoRA's pattern of ranks be that of the weights at hand, in which what was taken away is zero: peft's is of
    the training's last step, and would cut the weights of the best one by it.
    """
    if not isinstance(config, AdaLoraConfig) or not config.rank_pattern:
        return
    weights = dict(model.named_parameters())
    for name, held in config.rank_pattern.items():
        values = weights[f"{name.removesuffix(f'.{adapter}')}.{adapter}"]
        if len(values) == len(held):  # those of an adapter that was loaded are cut already
            config.rank_pattern[name] = (values != 0).flatten().tolist()


@contextmanager
def without_ranks(config: PeftConfig) -> Iterator[None]:
    """Let AdaLoRA leave a matrix without any rank: peft takes empty factors for parts that were not gathered."""
    with warnings.catch_warnings():
        if isinstance(config, AdaLoraConfig):
            warnings.filterwarnings("ignore", message=".*invalid shape")
        yield


def as_vectors(config: PeftConfig) -> PeftConfig:
    """Return the configuration under which what was saved learns on: of P-tuning the vectors themselves. The network
    that made them was for their training alone (Liu et al. 2021, section 3.2), and is in no file.
    """
    if not isinstance(config, PromptEncoderConfig):
        return config
    known = {key: value for key, value in config.to_dict().items() if key in PromptTuningConfig.__dataclass_fields__}
    return PromptTuningConfig(**{**known, "peft_type": None})
