"""A user's file of DeepSpeed's own keys, checked before anything is built on it."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import UserError, suggest

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
    "zero_optimization.stage": "training.strategy",
    "zero_optimization.offload_optimizer": "machine.deepspeed.offload",
    "zero_optimization.offload_param": "machine.deepspeed.offload",
    "zero_optimization.zero_hpz_partition_size": "machine.deepspeed.secondary_partition",
    "zero_optimization.zero_quantized_weights": "machine.deepspeed.quantised_weights",
    "zero_optimization.zero_quantized_gradients": "machine.deepspeed.quantised_gradients",
}
"""Keys of DeepSpeed that a run decides, and by what."""
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


def given(path: str) -> dict[str, Any]:
    """Read a file of DeepSpeed's own keys. Raise UserError where it is none, or holds keys that the run decides."""
    where = f"machine.deepspeed.config: {path}"
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}:{error.lineno}: no JSON: {error.msg}") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: a table of keys was expected, not a {type(found).__name__}")
    for key, decider in _DECIDED.items():
        first, _, second = key.partition(".")
        inside = found.get(first, {})
        if first in found and (not second or (isinstance(inside, dict) and second in inside)):
            raise UserError(f"{where}: {key} is decided by {decider}; take it out")
    _check_names(found, where)
    _check_values(found.get("zero_optimization", {}), where)
    return found


def _check_names(found: dict[str, Any], where: str) -> None:
    """Raise UserError for a key DeepSpeed does not know: it would be passed over in silence."""
    for key in found:
        if key not in _OPEN:
            raise UserError(f"{where}: no key {key} here{suggest(key, _OPEN)}")
    for section, allowed in _inside().items():
        if not isinstance(found.get(section, {}), dict):
            raise UserError(f"{where}: {section}: a table of keys was expected, not {found[section]!r}")
        for key in found.get(section, {}):
            if key not in allowed:
                raise UserError(f"{where}: {section} has no key {key}{suggest(key, allowed)}")


def _inside() -> dict[str, set[str]]:
    """Return the keys DeepSpeed knows in each section."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.profiling.config import DeepSpeedFlopsProfilerConfig
    from deepspeed.runtime.activation_checkpointing.config import ACT_CHKPT_DEFAULT
    from deepspeed.runtime.constants import BUFFER_DTYPE, GRAD_ACCUM_DTYPE, PARAM_DTYPE
    from deepspeed.runtime.swap_tensor.aio_config import get_aio_config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    return {
        "zero_optimization": {*fields, *(field.alias for field in fields.values() if field.alias)},
        "activation_checkpointing": set(ACT_CHKPT_DEFAULT),
        "aio": set(get_aio_config({})),
        "comms_logger": set(CommsLoggerConfig.model_fields),
        "data_types": {BUFFER_DTYPE, GRAD_ACCUM_DTYPE, PARAM_DTYPE},
        "flops_profiler": set(vars(DeepSpeedFlopsProfilerConfig({}))),
    }


def _check_values(zero: dict[str, Any], where: str) -> None:
    """Raise UserError for values that ZeRO's own configuration refuses."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    try:
        DeepSpeedZeroConfig(**zero)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: zero_optimization.{key}: {first['msg']}, not {first['input']!r}") from error
