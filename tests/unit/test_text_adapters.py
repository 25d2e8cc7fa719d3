"""A folder with an adapter is its model with the adapter at work: no more, no less, nothing left out."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from configs.data import Task
from configs.decoding import Decoding
from distill import merging
from distill.errors import ModelError
from distill.models import ModelSource, fingerprint, load, load_config
from teachers.text.build import Asked, build
from tests.helpers.writers import CAUSAL, tokenizer, writer

TASK = Task(kind="generation")
SETTINGS: dict[str, peft.PeftConfig] = {
    "lora": peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], init_lora_weights=False),
    "ia3": peft.IA3Config(target_modules=["v_proj"], feedforward_modules=[], init_ia3_weights=False),
}


def base_folder(folder: Path, family: str = "marian", **changes: Any) -> Path:
    writer(family, **changes).save_pretrained(folder)
    tokenizer(ends=family not in CAUSAL).save_pretrained(folder)
    return folder


def adapter_folder(folder: Path, base: Path, family: str, kind: str) -> Any:
    """Write an adapter with random weights; return the model with it, unmerged."""
    torch.manual_seed(1)
    model = type(writer(family)).from_pretrained(base)
    joined = peft.get_peft_model(model, copy.deepcopy(SETTINGS[kind]))
    for name, parameter in joined.named_parameters():
        if "ia3" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    joined.save_pretrained(folder)
    return joined.eval()


def logits(model: Any, family: str) -> torch.Tensor:
    ids = torch.tensor([[5, 9, 13, 4], [7, 7, 20, 28]])
    more = {} if family in CAUSAL else {"decoder_input_ids": ids.flip(1)}
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, **more).logits
    return found


@pytest.mark.parametrize(("family", "kind"), [(f, k) for f in ("marian", "llama") for k in SETTINGS])
def test_equals_the_adapter_at_work_beside_its_model_and_in_its_weights(tmp_path: Path, family: str, kind: str) -> None:
    base = base_folder(tmp_path / "base", family)
    unmerged = adapter_folder(tmp_path / "adapter", base, family, kind)
    found = load(ModelSource(str(tmp_path / "adapter")), TASK, (), "teacher.model")
    plain = load(ModelSource(str(base)), TASK, (), "teacher.model")
    expected = logits(unmerged, family)
    for model in (found.model, merging.whole(found.model, "engine")):
        torch.testing.assert_close(logits(model, family), expected, atol=1e-5, rtol=1e-5)
    assert (expected - logits(plain.model, family)).abs().max() > 1e-2
    assert found.source == str(tmp_path / "adapter") and found.trained_head
    assert load_config(ModelSource(found.source), "").vocab_size == plain.model.config.vocab_size


@pytest.mark.parametrize(
    ("kind", "learned"),
    [(peft.PrefixTuningConfig, "keys"), (peft.PromptTuningConfig, "vectors before what is written")],  # on both sides
)
@pytest.mark.parametrize("engine", ["auto", "ctranslate2", "huggingface"])
def test_what_no_search_can_carry_is_refused_by_every_engine(
    tmp_path: Path, kind: Any, learned: str, engine: Any
) -> None:
    base = base_folder(tmp_path / "base", "marian")
    settings = kind(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2)
    peft.get_peft_model(writer("marian").from_pretrained(base), settings).save_pretrained(tmp_path / "adapter")
    found = load(ModelSource(str(tmp_path / "adapter")), TASK, (), "teacher.model")
    with pytest.raises(ModelError, match=f"its adapter learned {learned}, which"):
        build(found, "x", Asked(engine, "float32", tmp_path / "ct2", ["w1"], Decoding()))


def test_the_fingerprint_is_that_of_adapter_and_model(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    adapter_folder(tmp_path / "adapter", base, "marian", "lora")
    adapter = ModelSource(str(tmp_path / "adapter"))
    before = fingerprint(adapter)
    assert before != fingerprint(ModelSource(str(base))) and before == fingerprint(adapter)
    base_folder(base, seed=3)
    changed = fingerprint(adapter)
    adapter_folder(tmp_path / "adapter", base, "marian", "ia3")
    assert len({before, changed, fingerprint(adapter)}) == 3
