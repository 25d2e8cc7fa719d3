"""What a strategy cannot do is said at set-up."""

import json
from dataclasses import replace

import pytest

from configs.errors import UserError
from configs.strategies import DeepSpeed
from configs.training import Machine, Training
from distill.strategies.deepspeed_config import deepspeed_config
from distill.strategies.limits import check
from tests.helpers.facts import PLAIN

REFUSED = {
    "whole weights, ZeRO-3": ("deepspeed_3", {}, {"looks_at_weights": True}, "deepspeed_3 cuts up the weights"),
    "whole weights, FSDP": ("fsdp", {}, {"looks_at_weights": True}, "fsdp cuts up the weights"),
    "lent weights, ZeRO-3": ("deepspeed_3", {}, {"lends_weights": True}, "the student's frozen ones"),
    "lent weights, FSDP": ("fsdp", {}, {"lends_weights": True}, "or teacher: base$"),
    "layers left out": ("deepspeed_1", {}, {"leaves_out": True}, "student.adapter.drop leaves some out"),
    "AdaLoRA": ("deepspeed_2", {}, {"edits_weights": True}, "Choices: auto, ddp$"),
    "AdaLoRA in fp16": ("ddp", {}, {"edits_weights": True, "precision": "fp16"}, "overflows in fp16 counts for good"),
    "layers left out, FSDP": ("fsdp", {}, {"leaves_out": True}, "Choices: auto, ddp$"),
    "texts between steps": ("fsdp", {}, {"writes": True}, "training.validate_texts take as many passes as each"),
    "wrong answers": ("deepspeed_3", {}, {"chooses": True}, "rows with wrong answers take as many passes as each"),
    "fp16": ("deepspeed_2", {}, {"precision": "fp16"}, "still scaled for fp16 .* training.precision: bf16, fp32$"),
    "8 bits under autocast": (
        "deepspeed_3",
        {"quantised_weights": True},
        {"gpu": True, "precision": "bf16"},
        "DeepSpeed gathers in 8 bits without autocast alone",
    ),
    "ZeRO++ without ZeRO-3": ("deepspeed_2", {"quantised_weights": True}, {"gpu": True}, "is for deepspeed_3 on GPUs"),
    "ZeRO++ without GPUs": ("deepspeed_3", {"quantised_gradients": True}, {}, "is for deepspeed_3 on GPUs"),
    "a partition that does not divide": (
        "deepspeed_3",
        {"secondary_partition": 3},
        {"gpu": True, "devices": 4},
        "4 devices do not divide by 3",
    ),
    "a disk for ZeRO-2": ("deepspeed_2", {"offload": "nvme", "nvme": "/disk"}, {}, "nvme is for deepspeed_3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused(case):
    name, options, facts, message = REFUSED[case]
    machine = Machine(deepspeed=DeepSpeed(**options))
    with pytest.raises(UserError, match=message):
        check(name, machine, replace(PLAIN, **facts), "stages.student.training.strategy")


def test_options_of_deepspeed_are_for_its_own_stages():
    machine = Machine(deepspeed=DeepSpeed(quantised_weights=True))
    check("ddp", machine, PLAIN, "stages.teacher.training.strategy")


@pytest.mark.parametrize("name", ["auto", "ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3"])
def test_a_plain_training_goes_with_every_strategy(name):
    check(name, Machine(), PLAIN, "stages.student.training.strategy")


FILES = {
    "no JSON": ("{", r"ds.json:1: no JSON"),
    "a key twice": ('{"dump_state": true, "dump_state": false}', "dump_state is there twice; leave one"),
    "another library's file": (
        '{"zero_optimization": {"reduce_bucket_size": "auto"}}',
        "reduce_bucket_size: `auto` is for the Trainer of transformers; leave the key out",
    ),
    "no table": ("[]", "a table of keys was expected, not a list"),
    "a key the run decides": ('{"train_batch_size": 8}', "train_batch_size is decided by training.batch_size"),
    "the stage": ('{"zero_optimization": {"stage": 2}}', "zero_optimization.stage is decided by training.strategy"),
    "a slip in a section": (
        '{"flops_profiler": {"enable": true}}',
        "flops_profiler has no key enable; did you mean `enabled`",
    ),
    "no section": ('{"aio": 3}', "aio: a table of keys was expected, not 3"),
    "a bad value": (
        '{"zero_optimization": {"reduce_bucket_size": "x"}}',
        "zero_optimization.reduce_bucket_size: Input should be a valid integer, unable to parse string as an integer, "
        "not 'x'",
    ),
    "a disk of its own": (
        '{"zero_optimization": {"offload_param": {"device": "nvme", "nvme_path": "/local"}}}',
        "zero_optimization.offload_param is decided by machine.deepspeed.offload",
    ),
    "a slip": ('{"zero_optimisation": {}}', "no key zero_optimisation here; did you mean `zero_optimization`"),
    "a slip inside": (
        '{"zero_optimization": {"overlap_com": true}}',
        "zero_optimization has no key overlap_com; did you mean `overlap_comm`",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_of_deepspeeds_keys_is_checked(tmp_path, case):
    text, message = FILES[case]
    path = tmp_path / "ds.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        deepspeed_config(2, Training(epochs=1), DeepSpeed(config=str(path)), PLAIN)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"machine.deepspeed.config: .*no.json: No such file"):
        deepspeed_config(2, Training(epochs=1), DeepSpeed(config=str(tmp_path / "no.json")), PLAIN)


def test_a_files_keys_are_added_to_what_the_run_decides(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"overlap_comm": True}, "steps_per_print": 5}), encoding="utf-8")
    made = deepspeed_config(3, Training(epochs=1, gradient_clip=0.5), DeepSpeed(config=str(path)), PLAIN)
    assert made["zero_optimization"]["overlap_comm"] is True and made["zero_optimization"]["stage"] == 3
    assert made["steps_per_print"] == 5 and made["gradient_clipping"] == 0.5


PLUS_PLUS = {
    "zero_hpz_partition_size": ("secondary_partition", 2),
    "zero_quantized_weights": ("quantised_weights", True),
    "zero_quantized_gradients": ("quantised_gradients", True),
}
"""DeepSpeed's keys of ZeRO++, and the options and values that ask for them."""


@pytest.mark.parametrize("asked", [*([key] for key in PLUS_PLUS), [*PLUS_PLUS]], ids=" ".join)
def test_deepspeed_takes_what_is_asked_for_of_zero_plus_plus(asked):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    options = DeepSpeed(**dict(PLUS_PLUS[key] for key in asked))
    zero = deepspeed_config(3, Training(epochs=1), options, replace(PLAIN, gpu=True))["zero_optimization"]
    taken, plain = DeepSpeedZeroConfig(**zero), DeepSpeedZeroConfig(stage=3)  # it refuses keys it does not know
    for key, (_, value) in PLUS_PLUS.items():
        assert getattr(plain, key) != value  # so that a key that was left out would be seen
        assert getattr(taken, key) == (value if key in asked else getattr(plain, key))


def test_zero_plus_plus_that_is_not_asked_for_is_not_named():
    made = deepspeed_config(3, Training(epochs=1), DeepSpeed(), replace(PLAIN, gpu=True))
    assert not PLUS_PLUS.keys() & made["zero_optimization"].keys()
