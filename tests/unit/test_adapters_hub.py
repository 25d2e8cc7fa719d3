"""What is read of AdapterHub's folders, and what is refused; the outputs are compared in `tests/golden`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForSequenceClassification

from distill import adapters
from distill.errors import ModelError
from students.adapters.hub.build import take_over
from students.adapters.hub.fill import parts
from students.adapters.hub.read import read
from tests.golden.test_adapterhub import NEAR, ROOT, ROUNDED, base, distance


@pytest.fixture
def houlsby(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "bert" / "houlsby" / "task", tmp_path / "task"))


def change(folder: Path, **config: object) -> None:
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"] |= config
    path.write_text(json.dumps(content), encoding="utf-8")


def rename(folder: Path, old: str, new: str) -> None:
    weights = {name.replace(old, new): tensor for name, tensor in load_file(folder / "adapter.safetensors").items()}
    save_file(weights, folder / "adapter.safetensors")


def test_names_of_old_files_are_understood(houlsby: Path) -> None:
    rename(houlsby, ".attention.output.adapters.", ".attention.output.attention_text_task_adapters.")
    rename(houlsby, ".output.adapters.", ".output.layer_text_task_adapters.")
    change(houlsby, LN_after=False, invertible_adapter=None, type="text_task", new_attention_norm=False)
    assert distance(take_over(houlsby, base("bert"), "SEQ_CLS"), ROOT / "bert" / "houlsby") <= NEAR


def test_old_files_mean_other_functions_by_gelu(houlsby: Path) -> None:
    path = houlsby / "adapter_config.json"
    change(houlsby, non_linearity="gelu")
    assert read(houlsby).sections[0]["non_linearity"] == "gelu"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["version"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read(houlsby).sections[0]["non_linearity"] == "gelu_new"


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"ln_befor": True}, "ln_befor: unknown key; did you mean `ln_before`?"),
        ({"non_linearity": "swich"}, "non_linearity: unknown `swich`; did you mean `swish`?"),
        ({"residual_before_ln": "post_add", "mh_adapter": False}, "(False, True, 'post_add') cannot be taken over"),
        ({"is_parallel": True}, "mh_adapter: True cannot be taken over; networks that are parallel"),
        ({"scaling": "tanh"}, "scaling: `tanh` cannot be taken over"),
        ({"architecture": "loreft"}, "architecture: `loreft` cannot be taken over"),
        ({"mh_adapter": False, "output_adapter": False}, "none of them is set"),
    ],
)
def test_a_key_that_cannot_be_taken_over_is_named(houlsby: Path, config: dict[str, object], what: str) -> None:
    change(houlsby, **config)
    with pytest.raises(ModelError) as refused:
        take_over(houlsby, base("bert"), "SEQ_CLS")
    assert what in str(refused.value) and str(houlsby / "adapter_config.json") in str(refused.value)


def test_weights_that_nothing_computes_with_are_named(houlsby: Path) -> None:
    change(houlsby, mh_adapter=False)
    with pytest.raises(ModelError, match=r"nothing here computes with encoder\.layer\.0\.attention\.output\.adapters"):
        take_over(houlsby, base("bert"), "SEQ_CLS")


def test_weights_of_other_sizes_are_refused(houlsby: Path) -> None:
    with pytest.raises(ModelError, match=r"the weights lack|Missing key"):
        take_over(houlsby, base("t5"), "SEQ_2_SEQ_LM")


def test_a_shared_rule_that_was_never_saved_is_missed(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "compacter" / "task", tmp_path / "task"))
    weights = load_file(folder / "adapter.safetensors")
    save_file({n: t for n, t in weights.items() if "phm_rule" not in n}, folder / "adapter.safetensors")
    with pytest.raises(ModelError, match=r"the weights lack shared_parameters\.task\.phm_rule"):
        take_over(folder, base("bert"), "SEQ_CLS")


def test_a_head_of_adapterhubs_own_is_refused_and_can_be_left_out(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "pfeiffer_head" / "task", tmp_path / "task"))
    head = load_file(folder / "model_head.safetensors")
    save_file({f"heads.task.1.{n.split('.')[1]}": t for n, t in head.items()}, folder / "model_head.safetensors")
    with pytest.raises(ModelError, match="--without-head"):
        take_over(folder, base("bert"), "SEQ_CLS")
    assert (
        take_over(folder, base("bert"), "FEATURE_EXTRACTION", head=False).peft_config["default"].modules_to_save is None
    )


def test_a_file_of_anything_but_tensors_is_not_opened(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "houlsby_binary" / "task", tmp_path / "task"))
    torch.save({"name": Path("/")}, folder / "pytorch_adapter.bin")
    with pytest.raises(ModelError, match="cannot be read as tensors"):
        take_over(folder, base("bert"), "SEQ_CLS")


def test_stacks_that_adapterhub_computes_otherwise_are_refused() -> None:
    parallel, pfeiffer = (ROOT / "bert" / name / "task" for name in ("parallel", "pfeiffer"))
    houlsby, inverted = (ROOT / "bert" / name / "task" for name in ("houlsby", "pfeiffer_inv"))
    for task, below, what in (
        (parallel, pfeiffer, "not parallel"),
        (houlsby, pfeiffer, "of one kind"),
        (inverted, pfeiffer, "the lowest adapter only"),
    ):
        with pytest.raises(ModelError, match=what):
            take_over(task, base("bert"), "SEQ_CLS", on=[below])


def test_layers_are_counted_on_from_the_encoder_to_the_decoder() -> None:
    model = take_over(ROOT / "t5" / "houlsby_drop" / "task", base("t5"), "SEQ_2_SEQ_LM").get_base_model()
    left = json.loads((ROOT / "t5/houlsby_drop/task/adapter_config.json").read_text("utf-8"))["config"]["leave_out"]
    blocks = {".".join(name.split(".")[:3]) for name, _ in parts(model, "default")}  # type: ignore[arg-type]
    every = ["encoder.block.0", "encoder.block.1", "decoder.block.0"]
    assert left and blocks == {name for number, name in enumerate(every) if number not in left}


def test_a_prefix_is_attended_to_however_the_model_was_loaded(tmp_path: Path) -> None:
    adapters.save(take_over(ROOT / "bert" / "prefix" / "task", base("bert"), "SEQ_CLS"), tmp_path)
    plain = BertForSequenceClassification.from_pretrained(ROOT / "bert" / "base").eval()
    assert distance(adapters.attach(plain, tmp_path, "a test"), ROOT / "bert" / "prefix") <= ROUNDED


@pytest.mark.parametrize("factor", [None, 1, 2.5])
def test_an_invertible_part_of_no_width_is_refused(tmp_path: Path, factor: float | None) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "pfeiffer_inv" / "task", tmp_path / "task"))
    change(folder, inv_adapter_reduction_factor=factor)
    with pytest.raises(ModelError, match=r"inv_adapter_reduction_factor: .* is not a whole number of 2 or more"):
        take_over(folder, base("bert"), "SEQ_CLS")


@pytest.mark.parametrize("content", ["{", "{}", '{"name": "a,b"}'])
def test_a_fusion_that_says_nothing_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_fusion_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"adapter_fusion_config\.json: (is no JSON|`config` and `name`: missing)"):
        take_over(tmp_path, base("bert"), "SEQ_CLS")


def test_a_fusion_without_its_members_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "fusion" / "fusion", tmp_path / "fusion"))
    with pytest.raises(ModelError, match=r"adapter_names: no folder `first` in .* or beside it"):
        take_over(folder, base("bert"), "SEQ_CLS")


def test_updates_of_all_layers_are_named_once_and_those_of_some_one_by_one(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "bert" / "lora" / "task", tmp_path / "task"))
    every = take_over(folder, base("bert"), "SEQ_CLS").peft_config["default"]
    end = r"(?:.*\.)?encoder\.layer\.\d+\.attention\.self\."
    assert every.target_modules == f"{end}query|{end}value"
    weights = load_file(folder / "adapter.safetensors")
    save_file({n: t for n, t in weights.items() if ".layer.0." not in n}, folder / "adapter.safetensors")
    some = take_over(folder, base("bert"), "SEQ_CLS")
    assert len([name for name, _ in some.named_parameters() if "lora_A" in name]) == 2
    merged = take_over(ROOT / "gpt2" / "lora" / "task", base("gpt2"), "CAUSAL_LM").peft_config["default"]
    assert (merged.r, merged.lora_alpha, merged.rank_pattern) == (4, 8.0, {})


def test_matrices_of_other_ranks_keep_their_scale(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ROOT / "gpt2" / "lora" / "task", tmp_path / "task"))
    model = base("gpt2")
    inside = model.get_submodule("transformer.h.0.mlp.c_fc").weight.shape[1]
    place = "transformer.h.0.mlp.c_fc.loras.task."
    more = {f"{place}lora_A": torch.ones(2, 16), f"{place}lora_B": torch.ones(inside, 2)}
    save_file({**load_file(folder / "adapter.safetensors"), **more}, folder / "adapter.safetensors")
    adapted = take_over(folder, model, "CAUSAL_LM").get_base_model()
    for name, rank in (("mlp.c_fc", 2), ("attn.c_attn", 4)):
        layer: Any = adapted.get_submodule(f"transformer.h.0.{name}")
        assert (layer.r["default"], layer.scaling["default"]) == (rank, 2.0)
