"""A folder with an adapter is its model with the adapter at work: no more, no less, nothing left out."""

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from configs.data import Task
from distill.errors import ModelError
from distill.models import ModelSource, fingerprint, load, load_config
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
def test_equals_the_adapter_at_work(tmp_path: Path, family: str, kind: str) -> None:
    base = base_folder(tmp_path / "base", family)
    unmerged = adapter_folder(tmp_path / "adapter", base, family, kind)
    found = load(ModelSource(str(tmp_path / "adapter")), TASK, (), "teacher.model")
    torch.testing.assert_close(logits(found.model, family), logits(unmerged, family), atol=1e-5, rtol=1e-5)
    plain = load(ModelSource(str(base)), TASK, (), "teacher.model")
    assert (logits(found.model, family) - logits(plain.model, family)).abs().max() > 1e-2
    assert [name for name, _ in found.model.named_parameters()] == [name for name, _ in plain.model.named_parameters()]
    assert found.source == str(tmp_path / "adapter") and found.trained_head
    assert load_config(ModelSource(found.source), "").vocab_size == plain.model.config.vocab_size
    assert load(ModelSource(found.source), TASK, (), "", torch.bfloat16).model.dtype == torch.bfloat16


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


def test_what_is_wrong_with_an_adapter_is_said(tmp_path: Path) -> None:
    base, folder = base_folder(tmp_path / "base"), tmp_path / "adapter"
    adapter_folder(folder, base, "marian", "lora")

    def refused(task: Task = TASK, **settings: Any) -> str:
        path = folder / "adapter_config.json"
        kept = path.read_text(encoding="utf-8")
        path.write_text(json.dumps({**json.loads(kept), **settings}), encoding="utf-8")
        with pytest.raises(ModelError) as caught:
            load(ModelSource(str(folder)), task, (), "teacher.model")
        path.write_text(kept, encoding="utf-8")
        return str(caught.value)

    assert refused(Task()).endswith("is an adapter, and `task.kind` is `classification`; merge it first")
    assert refused(base_model_name_or_path=None).endswith("names no model in `base_model_name_or_path`")
    assert refused(base_model_name_or_path=str(folder)).endswith("names itself as the model it was trained on")
    assert f"base of {folder}: folder {tmp_path}/none not found" in refused(base_model_name_or_path=f"{tmp_path}/none")
    other = base_folder(tmp_path / "other", d_model=32)
    assert f"does not fit {other}: " in refused(base_model_name_or_path=str(other))
    deeper = base_folder(tmp_path / "deeper", decoder_layers=3)
    assert "Found missing adapter keys" in refused(base_model_name_or_path=str(deeper))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert f"adapter {folder} lacks adapter_model.safetensors; did you mean `adapter_model.bin`?" in refused()
