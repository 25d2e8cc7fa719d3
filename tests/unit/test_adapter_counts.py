"""Parameters of adapters on the architectures of the papers, against published counts; nothing is allocated."""

from typing import Any

import pytest
import torch
from peft import IA3Config, get_peft_model
from peft.tuners.ia3 import IA3Layer
from pydantic import TypeAdapter
from transformers import AutoConfig

from configs.adapters import Adapter
from configs.data import Task
from distill.adapted_model import roles
from distill.models import Loaded, auto_class, set_labels
from students.adapters.build import build
from tests.helpers.families import loaded

BERT_BASE = ("bert", {})
BERT_LARGE = (
    "bert",
    {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
)
ROBERTA_BASE = ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514})
T5_BASE = ("t5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12})
T0_3B = (
    "t5",
    {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "feed_forward_proj": "gated-gelu"},
)
T0_11B = ("t5", {**T0_3B[1], "d_model": 4096, "d_ff": 10240, "num_heads": 64})
BART_LARGE = ("bart", {})
GPT2_MEDIUM = ("gpt2", {"n_embd": 1024, "n_layer": 24, "n_head": 16})
MARIAN_BASE = (
    "marian",
    {
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
    },
)
HOULSBY: dict[str, Any] = {"kind": "bottleneck"}
PFEIFFER: dict[str, Any] = {"kind": "bottleneck", "place": "pfeiffer"}
LORA: dict[str, Any] = {"kind": "lora"}
PEFTS_IA3: dict[str, Any] = {"kind": "ia3", "targets": ["key", "value", "output.dense"]}
"""At the places of peft's own table."""
COUNTS = [
    (BERT_LARGE, {**HOULSBY, "size": 8}, 835_968, 100_352),
    (BERT_LARGE, {**HOULSBY, "size": 64}, 6_343_680, 100_352),  # 2.1 % with norms and head: Houlsby et al., table 1
    (BERT_LARGE, {**HOULSBY, "size": 256}, 25_227_264, 100_352),
    (BERT_BASE, {**HOULSBY, "size": 64}, 2_379_264, 38_400),
    (BERT_BASE, {**PFEIFFER, "size": 48}, 894_528, 0),  # 0.89 M in AdapterHub's tables
    (BERT_BASE, {"kind": "bitfit"}, 102_912, 0),  # 0.09 %: Ben Zaken et al., table 1
    (BERT_LARGE, {"kind": "bitfit"}, 272_384, 0),  # 0.08 %
    (BERT_BASE, {"kind": "bitfit", "targets": ["self.query", "intermediate.dense"]}, 46_080, 0),  # 0.04 %
    (BERT_LARGE, {"kind": "bitfit", "targets": ["self.query", "intermediate.dense"]}, 122_880, 0),
    (BERT_BASE, LORA, 294_912, 0),
    (BERT_BASE, {"kind": "ia3"}, 55_296, 0),  # 12 · (768 + 768 + 3072): keys, values, the inside, as in the paper
    (BERT_BASE, PEFTS_IA3, 64_512, 0),  # `output.dense` is the end of the attention's output too: 12 · 768 more
    (BERT_BASE, {"kind": "prefix", "tokens": 20, "width": None}, 368_640, 0),
    (BERT_BASE, {"kind": "norms"}, 38_400, 0),
    (ROBERTA_BASE, LORA, 294_912, 0),  # 0.3 M: Hu et al., table 2
    (GPT2_MEDIUM, {**LORA, "rank": 4}, 393_216, 0),
    (T0_3B, {"kind": "ia3"}, 540_672, 0),  # 0.01 % of T0: Liu et al. 2022
    (T0_11B, {"kind": "ia3"}, 1_081_344, 0),
    (T5_BASE, {**HOULSBY, "size": 64, "norms": False}, 5_948_160, 0),
    (T5_BASE, {**PFEIFFER, "size": 64}, 2_379_264, 0),
    (T5_BASE, {"kind": "ia3"}, 129_024, 0),
    (T5_BASE, {"kind": "prompt", "tokens": 100}, 76_800, 0),
    (T5_BASE, {**PFEIFFER, "size": 24, "kronecker": 4}, 57_088, 0),  # Compacter++
    (BART_LARGE, {"kind": "bottleneck", "place": "parallel", "size": 512}, 25_202_688, 0),
    (MARIAN_BASE, LORA, 294_912, 0),
    (MARIAN_BASE, {"kind": "ia3"}, 43_008, 0),
    (MARIAN_BASE, {**HOULSBY, "size": 64, "norms": False}, 1_983_360, 0),
    (MARIAN_BASE, {**PFEIFFER, "size": 64}, 793_344, 0),
    (MARIAN_BASE, {"kind": "bitfit"}, 82_944, 0),
]
_SECTION: TypeAdapter[Adapter] = TypeAdapter(Adapter)


@pytest.mark.parametrize(("model", "adapter", "method", "norms"), COUNTS)
def test_an_adapter_has_as_many_parameters_as_published(model, adapter, method, norms):
    kind, sizes = model
    config = AutoConfig.for_model(kind, **sizes)
    task = Task(kind="classification" if kind in ("bert", "roberta") else "generation", labels=("no", "yes"))
    set_labels(config, task, task.labels)
    with torch.device("meta"):
        made = auto_class(task, config).from_config(config)
        whole = sum(parameter.numel() for parameter in made.parameters())
        adapted = build(_SECTION.validate_python(adapter), Loaded(made, None, kind, True), task)
    counts = roles(adapted)
    assert (counts["method"], counts["norms"], counts["frozen"]) == (method, norms, whole)


def test_what_pefts_table_names_has_factors_on_the_sides_it_says() -> None:
    """(IA)³ of the paper, as AdapterHub's, leaves the attention's output alone."""
    task = Task(kind="classification", labels=("no", "yes"))
    config = AutoConfig.for_model("bert")
    with torch.device("meta"):
        ours, theirs = (auto_class(task, config).from_config(config) for _ in range(2))
        adapted = build(_SECTION.validate_python(PEFTS_IA3), Loaded(ours, None, "bert", True), task)
        peft = get_peft_model(theirs, IA3Config(task_type="SEQ_CLS"))
    sides = [
        {name: module.is_feedforward for name, module in model.named_modules() if isinstance(module, IA3Layer)}
        for model in (adapted, peft)
    ]
    assert sides[0] == sides[1] and len(sides[0]) == 12 * 4
    assert sum(name.endswith("attention.output.dense") for name, before in sides[0].items() if before) == 12


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # the copy is meant to part from it
@pytest.mark.parametrize(
    ("kind", "task", "also", "counts"),
    [
        ("bert", "classification", "word_embeddings", {"head": 2 * 16 + 2, "whole modules": 48 * 16}),
        ("t5", "generation", "encoder.embed_tokens", {"head": 0, "whole modules": 48 * 16}),
        ("t5", "generation", "lm_head", {"head": 48 * 16, "whole modules": 0}),
        ("bert", "classification", "embeddings.LayerNorm", {"head": 2 * 16 + 2, "norms": 2 * 16}),
    ],
)
def test_heads_are_told_from_other_modules_that_train_whole(kind, task, also, counts):
    asked = Task(kind=task, labels=("no", "yes") if task == "classification" else None)
    adapted = build(_SECTION.validate_python({"kind": "lora", "also": [also]}), loaded(kind, task=asked), asked)
    found = roles(adapted)
    assert found == {**found, **counts} and found["method"] > 0
