"""Tiny models of eight families, as loaded for a task, and a batch for each."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from configs.data import Task
from distill.data.labels import IGNORED
from distill.models import Loaded, auto_class, set_labels

WIDTH, VOCABULARY = 16, 48
_ENCODER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_BESIDE = {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 40,
}
_SIZES: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "llama": _ENCODER,
    "distilbert": {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "t5": {"d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2},
    "marian": _BESIDE,
    "bart": _BESIDE,
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 40},
}
_DROPOUT = (
    *("dropout", "attention_dropout", "activation_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop", "seq_classif_dropout"),
)
ENCODERS = ("bert", "roberta", "distilbert")
BESIDE = ("t5", "marian", "bart")
CAUSAL = ("gpt2", "llama")
FAMILIES = (*ENCODERS, *BESIDE, *CAUSAL)


def task_of(kind: str) -> Task:
    """A classification for encoders, a generation for the others."""
    return Task(kind="classification" if kind in ENCODERS else "generation", labels=("no", "yes"))


def loaded(kind: str, seed: int = 0, task: Task | None = None, *, strength: float = 0.2) -> Loaded:
    """A tiny model with random weights large enough to matter, N(0, strength²), and no dropout."""
    config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, pad_token_id=0, **_SIZES[kind])
    config.update(dict.fromkeys(_DROPOUT, 0.0))
    config.update({"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None})
    task = task or task_of(kind)
    set_labels(config, task, task.labels or ())
    torch.manual_seed(seed)
    model: PreTrainedModel = auto_class(task, config).from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=strength)
    model.tie_weights()
    return Loaded(model, None, f"a tiny {kind}", trained_head=True)  # type: ignore[arg-type]


def batch(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """Three rows of different lengths, with their targets."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids = torch.where(mask.bool(), ids, 0)
    made = {"input_ids": ids, "attention_mask": mask}
    if kind in ENCODERS:
        return {**made, "labels": torch.tensor([0, 1, 1])}
    if kind in CAUSAL:
        after = torch.cat((ids[:, 1:], torch.zeros(3, 1, dtype=torch.long)), 1)
        return {**made, "labels": torch.where(after > 0, after, IGNORED)}
    targets = torch.randint(3, VOCABULARY, (3, 5), generator=draw)
    start = torch.zeros(3, 1, dtype=torch.long)
    return {**made, "decoder_input_ids": torch.cat((start, targets[:, :-1]), 1), "labels": targets}


def draw(model: nn.Module, std: float) -> None:
    """Give all that learns in a model weights that say something, N(0, std²), the same at every call."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=std)


@torch.no_grad()
def last_states(model: Any, kind: str) -> Tensor:
    """What the last layer of a model says of a family's batch, [B T H]."""
    inputs = {name: tensor for name, tensor in batch(kind).items() if name in ("input_ids", "attention_mask")}
    found: Tensor = model.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
    return found
