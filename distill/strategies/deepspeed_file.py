"""A user's file of DeepSpeed's own keys, checked before anything is built on it."""

import json
from pathlib import Path
from typing import Any

from configs.errors import UserError, suggest
from distill.strategies.deepspeed_values import check_values, sections

_DECIDED = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.micro_batch_size",
    "gradient_clipping": "training.gradient_clip",
    "optimizer": "training.learning_rate, betas, eps and weight_decay",
    "scheduler": "training.schedule",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "torch_autocast": "training.precision",
    "data_types.param_dtype": "training.precision",
    "zero_optimization.stage": "training.strategy",
    "zero_optimization.offload_optimizer": "machine.deepspeed.offload",
    "zero_optimization.offload_param": "machine.deepspeed.offload",
    "zero_optimization.cpu_offload": "machine.deepspeed.offload",
    "zero_optimization.cpu_offload_param": "machine.deepspeed.offload",
    "zero_optimization.cpu_offload_use_pin_memory": "machine.deepspeed.offload",
    "zero_optimization.zenflow": "machine.deepspeed.offload",
    "zero_optimization.zero_hpz_partition_size": "machine.deepspeed.secondary_partition",
    "zero_optimization.zero_quantized_weights": "machine.deepspeed.quantised_weights",
    "zero_optimization.zero_quantized_gradients": "machine.deepspeed.quantised_gradients",
}
"""Keys of DeepSpeed that a run decides, and by what; among them old names that it still takes."""
_OPEN = (
    "activation_checkpointing",
    "aio",
    "comms_logger",
    "communication_data_type",
    "data_types",
    "dump_state",
    "flops_profiler",
    "gradient_predivide_factor",
    "memory_breakdown",
    "prescale_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""Keys of DeepSpeed that a file may hold."""


def merged(config: dict[str, Any], path: str, *, gpu: bool) -> dict[str, Any]:
    """Add a file of DeepSpeed's own keys to a run's configuration. Raise UserError where it is none, holds keys that
    the run decides, or values that DeepSpeed would not take.
    """
    where = f"machine.deepspeed.config: {path}"
    more = _read(path, where)
    for key, decider in _DECIDED.items():
        first, _, second = key.partition(".")
        inside = more.get(first, {})
        if first in more and (not second or (isinstance(inside, dict) and second in inside)):
            raise UserError(f"{where}: {key} is decided by {decider}; take it out")
    _check_names(more, where)
    zero = config["zero_optimization"] | more.get("zero_optimization", {})
    whole = config | more | {"zero_optimization": zero}
    check_values(whole, more, where, gpu=gpu)
    return whole


def _read(path: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start}"
        raise UserError(f"{where}: not UTF-8: {byte}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}:{error.lineno}: no JSON: {error.msg}") from error
    except _Ambiguous as error:
        raise UserError(f"{where}: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: a table of keys was expected, not a {type(found).__name__}")
    return found


class _Ambiguous(Exception):
    """A key whose value DeepSpeed would choose without a word."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table. Raise _Ambiguous for a key that is there twice, and for the `auto` of another library's files."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Ambiguous(f"{key} is there twice; leave one")
        if value == "auto":
            raise _Ambiguous(
                f"{key}: `auto` is for the Trainer of transformers; leave the key out for DeepSpeed's default"
            )
        found[key] = value
    return found


def _check_names(found: dict[str, Any], where: str) -> None:
    """Raise UserError for a key DeepSpeed does not know: it would be passed over in silence."""
    for key in found:
        if key not in _OPEN:
            raise UserError(f"{where}: no key {key} here{suggest(key, _OPEN)}")
    for section, allowed in sections().items():
        if not isinstance(found.get(section, {}), dict):
            raise UserError(f"{where}: {section}: a table of keys was expected, not {found[section]!r}")
        for key in found.get(section, {}):
            if key not in allowed:
                raise UserError(f"{where}: {section} has no key {key}{suggest(key, allowed)}")
