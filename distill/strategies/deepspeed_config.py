"""DeepSpeed's own configuration of a training, and a user's additions to it."""

import json
from pathlib import Path
from typing import Any

from configs.errors import UserError, suggest
from configs.strategies import DeepSpeed
from configs.training import Training
from distill.strategies.limits import Facts
from distill.strategies.precision import AUTOCAST

BUCKET = 50_000_000
"""Most elements of gradients that are sent at once, and that a buffer is held for."""
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


def deepspeed_config(stage: int, training: Training, options: DeepSpeed, facts: Facts) -> dict[str, Any]:
    """Return DeepSpeed's own configuration of a training. Lower precision is autocast, as without DeepSpeed. Raise
    UserError where the user's file is not fit to be added.
    """
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "reduce_bucket_size": min(BUCKET, facts.trained),
        "allgather_bucket_size": min(BUCKET, facts.trained),
    }
    if options.offload != "none":
        place = {"device": options.offload, **({"nvme_path": options.nvme} if options.nvme else {})}
        zero |= {"offload_optimizer": place, **({"offload_param": place} if stage == 3 else {})}
    if options.is_plus_plus:
        zero |= {
            "zero_hpz_partition_size": options.secondary_partition,
            "zero_quantized_weights": options.quantised_weights,
            "zero_quantized_gradients": options.quantised_gradients,
        }
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed's own timers alone look at it
        "gradient_clipping": training.gradient_clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,  # AdamW is torch's, as without DeepSpeed
        "zero_force_ds_cpu_optimizer": False,
    }
    dtype = AUTOCAST[facts.precision]
    if dtype is not None:
        exact: list[str] = []  # layers whose gradients would be summed in the lower precision
        config["torch_autocast"] = {
            "enabled": True,
            "dtype": str(dtype).removeprefix("torch."),
            "lower_precision_safe_modules": exact,
        }
    return config if options.config is None else _merged(config, given(options.config))


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
        if first in found and (not second or second in found[first]):
            raise UserError(f"{where}: {key} is decided by {decider}; take it out")
    _check_names(found, where)
    return found


def _check_names(found: dict[str, Any], where: str) -> None:
    """Raise UserError for a key DeepSpeed does not know: it would be passed over in silence."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for key in found:
        if key not in _OPEN:
            raise UserError(f"{where}: no key {key} here{suggest(key, _OPEN)}")
    fields = DeepSpeedZeroConfig.model_fields
    allowed = {*fields, *(field.alias for field in fields.values() if field.alias)}
    for key in found.get("zero_optimization", {}):
        if key not in allowed:
            raise UserError(f"{where}: zero_optimization has no key {key}{suggest(key, allowed)}")


def _merged(config: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    zero = config["zero_optimization"] | more.get("zero_optimization", {})
    return config | more | {"zero_optimization": zero}
