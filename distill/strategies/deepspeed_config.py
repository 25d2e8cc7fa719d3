"""DeepSpeed's own configuration of a training, and a user's additions to it."""

from dataclasses import dataclass
from typing import Any

from configs.strategies import DeepSpeed
from configs.training import Training
from distill.strategies.deepspeed_file import merged
from distill.strategies.limits import Facts
from distill.strategies.precision import AUTOCAST

BUCKET = 50_000_000
"""Most elements of gradients that are sent at once, and that a buffer is held for."""


@dataclass(frozen=True)
class Keeping:
    """What DeepSpeed keeps beside a device's parts, as its configuration says: in elements, of weights but for the
    first.
    """

    buckets: int = 0
    """Gradients on their way, in buffers that are whole from the first one on."""
    scattered: bool = False
    """Whether they are in no buffers: they wait as they come, and are laid end to end to be summed."""
    reused: int = 0
    """Those that stay gathered because they are used again so soon."""
    ahead: int = 0
    """Those that are gathered ahead of their use."""
    small: int = 0
    """Of a weight that stays gathered for good, at most."""
    all_small: int = 0
    """Of all that do, at most."""
    group: int = 0
    """Those the optimiser works on at a time."""
    secondary: int = 1
    """Devices that hold a second copy of all of them together; 1: there is none."""


def keeping(config: dict[str, Any]) -> Keeping:
    """Read what is kept from a complete configuration; what it does not say is DeepSpeed's default. Weights are
    gathered in place after a step, whatever `allgather_bucket_size` is.
    """
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    zero = DeepSpeedZeroConfig(**config["zero_optimization"])
    twice = zero.overlap_comm and zero.contiguous_gradients and zero.stage < 3  # one is filled, one is sent
    return Keeping(
        buckets=zero.reduce_bucket_size * (2 if twice else 1),
        scattered=not zero.contiguous_gradients,
        reused=zero.max_reuse_distance,
        ahead=1 if zero.allgather_sequential else min(zero.prefetch_bucket_size, zero.max_live_parameters),
        small=zero.param_persistence_threshold,
        all_small=zero.model_persistence_threshold,
        group=zero.sub_group_size,
        secondary=zero.zero_hpz_partition_size,
    )


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
    return config if options.config is None else merged(config, options.config, gpu=facts.gpu)
