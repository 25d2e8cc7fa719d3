"""Values of DeepSpeed's own keys: some it looks at in training alone, and raises there what it happens to meet."""

from typing import Annotated, Any, Literal

from pydantic import AllowInfNan, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from configs.errors import UserError

_Float32 = Literal["fp32", "float32", "float", "torch.float32"]
_Float16 = Literal["fp16", "float16", "half", "torch.float16"]
_BFloat16 = Literal["bf16", "bfloat16", "torch.bfloat16"]
Dtype = Literal[_Float32, _Float16, _BFloat16]
"""DeepSpeed's names of the types that gradients and buffers may have."""
KINDS: dict[str, Any] = {
    "activation_checkpointing.number_checkpoints": PositiveInt | None,
    "aio.block_size": PositiveInt,
    "aio.intra_op_parallelism": PositiveInt,
    "aio.queue_depth": PositiveInt,
    "communication_data_type": str | None,
    "data_types.buffer_dtype": Dtype | None,
    "data_types.grad_accum_dtype": Dtype | None,
    "dump_state": bool,
    "flops_profiler.output_file": str | None,
    "gradient_predivide_factor": Annotated[PositiveFloat, AllowInfNan(False)],
    "memory_breakdown": bool,
    "prescale_gradients": bool,
    "steps_per_print": PositiveInt | None,
    "wall_clock_breakdown": bool,
    "zero_force_ds_cpu_optimizer": bool,
}
"""What is taken for a key; where it is not told here: what its default is, or what DeepSpeed's own model takes."""
_MODELLED = {"DeepSpeedZeroConfig": "zero_optimization", "CommsLoggerConfig": "comms_logger"}
"""Sections by the models that DeepSpeed reads them with."""


def sections() -> dict[str, dict[str, Any]]:
    """Return the keys DeepSpeed knows in each section, old names aside, with their defaults."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.profiling.config import DeepSpeedFlopsProfilerConfig
    from deepspeed.runtime.activation_checkpointing.config import ACT_CHKPT_DEFAULT
    from deepspeed.runtime.constants import BUFFER_DTYPE, GRAD_ACCUM_DTYPE
    from deepspeed.runtime.swap_tensor.aio_config import get_aio_config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    zero = {name: field for name, field in fields.items() if not _is_old(field.json_schema_extra)}
    aliases = {field.alias: field.default for field in zero.values() if field.alias}
    return {
        "zero_optimization": {name: field.default for name, field in zero.items()} | aliases,
        "activation_checkpointing": ACT_CHKPT_DEFAULT,
        "aio": get_aio_config({}),
        "comms_logger": {name: field.default for name, field in CommsLoggerConfig.model_fields.items()},
        "data_types": dict.fromkeys((BUFFER_DTYPE, GRAD_ACCUM_DTYPE)),
        "flops_profiler": vars(DeepSpeedFlopsProfilerConfig({})),
    }


def _is_old(more: Any) -> bool:
    return isinstance(more, dict) and bool(more.get("deprecated"))


def check_values(config: dict[str, Any], given: dict[str, Any], where: str, *, gpu: bool) -> None:
    """Raise UserError for values among those given by the user that DeepSpeed does not take, alone or in the whole
    configuration.
    """
    for key, value in given.items():
        _check_kinds(key, value, where)
    zero = _read_by_deepspeed(config, where).zero_config
    if zero.stage > 1 and zero.reduce_scatter:
        for key, usual in (("gradient_predivide_factor", 1.0), ("prescale_gradients", False)):
            if config.get(key, usual) != usual:
                raise UserError(f"{where}: {key} is for zero_optimization.reduce_scatter: false, or deepspeed_1")
    if not zero.compute_grad_norm and config["gradient_clipping"]:
        raise UserError(f"{where}: zero_optimization.compute_grad_norm: false is for training.gradient_clip: 0")
    if not zero.compute_grad_norm and zero.offload_optimizer is not None:
        raise UserError(f"{where}: zero_optimization.compute_grad_norm: false is for machine.deepspeed.offload: none")
    if config["zero_force_ds_cpu_optimizer"] and zero.offload_optimizer is not None:
        raise UserError(f"{where}: zero_force_ds_cpu_optimizer: true is for machine.deepspeed.offload: none")
    if config.get("aio", {}).get("use_gds") and not gpu:
        raise UserError(f"{where}: aio.use_gds: true is for GPUs")


def _check_kinds(key: str, value: Any, where: str) -> None:
    if key in _MODELLED.values():
        return
    defaults = sections().get(key)
    inside = {key: value} if defaults is None else {f"{key}.{name}": one for name, one in value.items()}
    for name, one in inside.items():
        kind = KINDS[name] if name in KINDS or defaults is None else type(defaults[name.partition(".")[2]])
        try:
            TypeAdapter(kind).validate_python(one, strict=True)
        except ValidationError as error:
            raise UserError(f"{where}: {name}: {error.errors()[0]['msg']}, not {one!r}") from error


def _read_by_deepspeed(config: dict[str, Any], where: str) -> Any:
    """Have DeepSpeed read a configuration, as it does in training. Of a disk's keys it asks the machine that it is on,
    which a plan is not for.
    """
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        return DeepSpeedConfig({key: value for key, value in config.items() if key != "aio"})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (_MODELLED.get(error.title, error.title), *first["loc"])))
        said = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        value = f", not {first['input']!r}" if first["loc"] else ""  # a rule of several keys is given all of them
        raise UserError(f"{where}: {key}: {said}{value}") from error
    except Exception as error:  # of any kind: what it meets where it does not look
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{where}: DeepSpeed does not take it: {said}") from error
