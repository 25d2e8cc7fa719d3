"""DeepSpeed's own configuration of a training, and a user's additions to it."""

from typing import Any

from configs.strategies import DeepSpeed
from configs.training import Training
from distill.strategies.deepspeed_file import merged
from distill.strategies.limits import Facts
from distill.strategies.precision import AUTOCAST

BUCKET = 50_000_000
"""Most elements of gradients that are sent at once, and that a buffer is held for."""


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
