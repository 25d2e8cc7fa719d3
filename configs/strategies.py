"""How a training is spread over devices."""

from typing import Literal

from pydantic import PositiveInt, model_validator

from configs.section import Section

StrategyName = Literal["auto", "ddp", "fsdp", "deepspeed_1", "deepspeed_2", "deepspeed_3"]
"""`auto`: one device as it is, several by `ddp`. `ddp` keeps all of the student on each device. DeepSpeed's stages cut
up the optimiser's state (1), its gradients too (2), its weights too (3), as `fsdp` does."""


class Fsdp(Section):
    """What the strategy `fsdp` may be told."""

    offload: bool = False
    """Keep each device's part of weights, gradients and moments in the host's memory between uses."""


class DeepSpeed(Section):
    """What the strategies `deepspeed_…` may be told."""

    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where the optimiser's state lies, and with `deepspeed_3` the weights between their uses."""
    nvme: str | None = None
    """Folder on a local disk, for `offload: nvme`."""
    secondary_partition: PositiveInt = 1
    """ZeRO++ (Wang et al. 2023), hpZ: devices that keep a whole second copy of the weights among them, those of one
    host as a rule, so that the backward pass gathers within it. `deepspeed_3` on GPUs."""
    quantised_weights: bool = False
    """ZeRO++, qwZ: gather weights in 8 bits; changes results. `deepspeed_3` on GPUs."""
    quantised_gradients: bool = False
    """ZeRO++, qgZ: reduce gradients in 4 bits; changes results. `deepspeed_3` on GPUs."""
    config: str | None = None
    """A JSON file of DeepSpeed's own keys, added to what is derived from the run; a key that the run decides (batch
    sizes, precision, clipping, optimiser) is refused."""

    @model_validator(mode="after")
    def _folder(self) -> "DeepSpeed":
        if (self.offload == "nvme") != (self.nvme is not None):
            raise ValueError("`nvme`, a folder on a local disk, and `offload: nvme` belong together")
        return self

    @property
    def is_plus_plus(self) -> bool:
        """Whether any of ZeRO++ is asked for."""
        return self.secondary_partition > 1 or self.quantised_weights or self.quantised_gradients
