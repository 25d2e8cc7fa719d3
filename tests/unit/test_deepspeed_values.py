"""What DeepSpeed would raise in training, or take in silence, is said of its file at set-up."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from configs.errors import UserError
from configs.strategies import DeepSpeed
from configs.training import Training
from distill.strategies.deepspeed_config import deepspeed_config
from distill.strategies.deepspeed_file import _OPEN
from distill.strategies.deepspeed_values import KINDS, Dtype, sections
from tests.helpers import tiny
from tests.helpers.facts import PLAIN

NO_NORM = {"zero_optimization": {"compute_grad_norm": False}}
WHOLE = {"zero_optimization": {"reduce_scatter": False}}


def _made(folder: Path, keys: dict, stage: int = 2, clip: float = 1.0, gpu: bool = False, **options: str) -> dict:
    path = folder / "ds.json"
    path.write_text(json.dumps(keys), encoding="utf-8")
    training = Training(epochs=1, gradient_clip=clip)
    return deepspeed_config(stage, training, DeepSpeed(config=str(path), **options), replace(PLAIN, gpu=gpu))


REFUSED = {
    "no number of steps": (
        {"steps_per_print": "abc"},
        "steps_per_print: Input should be a valid integer, not 'abc'",
    ),
    "steps of none": ({"steps_per_print": 0}, "steps_per_print: Input should be greater than 0, not 0"),
    "no type to send": (
        {"communication_data_type": "foo"},
        "Invalid communication_data_type. Supported data types: ['fp16', 'bf16', 'fp32']. Got: foo",
    ),
    "a number for a type": ({"communication_data_type": 16}, "communication_data_type: Input should be a valid string"),
    "no type to add up in": (
        {"data_types": {"grad_accum_dtype": "nope"}},
        "data_types.grad_accum_dtype: Input should be 'fp32', ",
    ),
    "integers to add up in": (
        {"data_types": {"grad_accum_dtype": "int8"}},
        "data_types.grad_accum_dtype: Input should be 'fp32', ",
    ),
    "no type of buffers": ({"data_types": {"buffer_dtype": 16}}, "data_types.buffer_dtype: Input should be 'fp32', "),
    "the type of weights": ({"data_types": {"param_dtype": "bf16"}}, "param_dtype is decided by training.precision"),
    "a word for no": ({"dump_state": "false"}, "dump_state: Input should be a valid boolean, not 'false'"),
    "division by nothing": (
        {"gradient_predivide_factor": 0},
        "gradient_predivide_factor: Input should be greater than 0, not 0",
    ),
    "division by no number": (
        {"gradient_predivide_factor": float("nan")},
        "gradient_predivide_factor: Input should be a finite number",
    ),
    "a word in a section": (
        {"flops_profiler": {"enabled": "x"}},
        "flops_profiler.enabled: Input should be a valid boolean, not 'x'",
    ),
    "a word for blocks": ({"aio": {"block_size": "1M"}}, "aio.block_size: Input should be a valid integer, not '1M'"),
    "a number for yes": (
        {"activation_checkpointing": {"profile": 3}},
        "activation_checkpointing.profile: Input should be a valid boolean, not 3",
    ),
    "a model's value": (
        {"comms_logger": {"prof_ops": 3}},
        "comms_logger.prof_ops: Input should be a valid list, not 3",
    ),
    "no table inside": ({"zero_optimization": {"leaf_module": 3}}, "leaf_module configuration must be a mapping"),
    "a norm that is needed": (NO_NORM, "zero_optimization.compute_grad_norm: false is for training.gradient_clip: 0"),
    "divided before a scatter": (
        {"gradient_predivide_factor": 2},
        "gradient_predivide_factor is for zero_optimization.reduce_scatter: false, or deepspeed_1",
    ),
    "scaled before a scatter": (
        {"prescale_gradients": True},
        "prescale_gradients is for zero_optimization.reduce_scatter: false, or deepspeed_1",
    ),
    "a GPU's way to a disk": ({"aio": {"use_gds": True}}, "aio.use_gds: true is for GPUs"),
    "an engine of its own": ({"zero_optimization": {"zenflow": {}}}, "zenflow is decided by machine.deepspeed.offload"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_value_is_refused_in_one_line_with_file_and_key(tmp_path, case):
    keys, message = REFUSED[case]
    with pytest.raises(UserError) as refused:
        _made(tmp_path, keys)
    told = str(refused.value)
    assert told.startswith(f"machine.deepspeed.config: {tmp_path / 'ds.json'}: ") and message in told
    assert "\n" not in told and len(told) < 400


def test_a_rule_of_stages_is_told_without_the_whole_section(tmp_path):
    with pytest.raises(UserError) as refused:
        _made(tmp_path, NO_NORM, stage=3, clip=0.0)
    assert str(refused.value).endswith(
        "zero_optimization: compute_grad_norm=false is supported only with ZeRO Stage 1 or 2"
    )


@pytest.mark.parametrize("keys", [NO_NORM, {"zero_force_ds_cpu_optimizer": True}], ids=lambda keys: next(iter(keys)))
def test_what_does_not_go_with_offload_is_refused(tmp_path, keys):
    _made(tmp_path, keys, clip=0.0)
    with pytest.raises(UserError, match=r"(false|true) is for machine.deepspeed.offload: none$"):
        _made(tmp_path, keys, clip=0.0, offload="cpu")


TAKEN = {
    "no norm": (NO_NORM, {"clip": 0.0}),
    "no norm, ZeRO-1": (NO_NORM, {"stage": 1, "clip": 0.0}),
    "divided before a sum": ({"gradient_predivide_factor": 2} | WHOLE, {}),
    "divided before, ZeRO-1": ({"gradient_predivide_factor": 2.0, "prescale_gradients": True}, {"stage": 1}),
    "a GPU's way to a disk": ({"aio": {"use_gds": True}}, {"gpu": True}),  # planned for where there is none
    "types": ({"communication_data_type": "BF16", "data_types": {"grad_accum_dtype": "torch.float32"}}, {}),
    "nothing": ({"steps_per_print": None, "flops_profiler": {"output_file": None}, "comms_logger": {}}, {}),
    "by its other name": ({"zero_optimization": {"prefetch_bucket_size": 7}}, {"stage": 3}),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_deepspeed_takes_is_taken(tmp_path, capsys, case):
    keys, given = TAKEN[case]
    made = _made(tmp_path, keys, **given)
    assert all(made[key] == value for key, value in keys.items() if key != "zero_optimization")
    assert made["zero_optimization"].items() >= keys.get("zero_optimization", {}).items()
    assert capsys.readouterr() == ("", "")


def test_no_old_name_of_a_key_gets_past(tmp_path):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    old = [name for name, field in fields.items() if (field.json_schema_extra or {}).get("deprecated")]
    assert {"cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory"} < {*old}
    decided = r"is decided by machine\.deepspeed\.offload; take it out$"
    for name in old:
        renamed = rf"has no key {name}; did you mean `stage3_gather_16bit_weights_on_model_save`"
        with pytest.raises(UserError, match=decided if "offload" in name else renamed):
            _made(tmp_path, {"zero_optimization": {name: True}}, stage=3)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "ds.json"
    path.write_bytes('{"é": 1}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"ds.json: not UTF-8: byte 0xe9 at 2; save the file as UTF-8$"):
        deepspeed_config(2, Training(epochs=1), DeepSpeed(config=str(path)), PLAIN)


def test_every_key_that_a_file_may_hold_has_a_kind():
    known = sections()
    assert {*_OPEN} == {*known} | {key for key in KINDS if "." not in key}
    modelled = ("zero_optimization", "comms_logger")
    plain = {f"{name}.{key}": value for name in known if name not in modelled for key, value in known[name].items()}
    assert {key for key in KINDS if "." in key} <= plain.keys()
    assert [key for key, default in plain.items() if default is None and key not in KINDS] == []


def test_the_types_are_those_of_deepspeed():
    from deepspeed.runtime.config import DtypeEnum

    floats = [member for member in DtypeEnum if member.value.is_floating_point]
    assert {*get_args(Dtype)} == {name for member in floats for name in member._all_values[1:]}


def test_check_says_what_training_would_have_met(call, tmp_path):
    stage = {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}], "training": {"max_steps": 2}}
    run = tiny.run_file(tmp_path, {"student": stage})
    keys = tmp_path / "ds.json"
    keys.write_text('{"steps_per_print": "abc"}', encoding="utf-8")
    given = (str(run), "machine.strategy=deepspeed_2", f"machine.deepspeed.config={keys}")
    code, _, err = call("check", *given)
    told = f"error: machine.deepspeed.config: {keys}: steps_per_print: Input should be a valid integer, not 'abc'\n"
    assert code == 2 and err.endswith(told)
