"""Strategies of Lightning by their names."""

from dataclasses import dataclass

from lightning.pytorch.strategies import DDPStrategy, Strategy

from configs.strategies import StrategyName
from configs.training import Machine, Training
from distill.peers import patience
from distill.strategies.deepspeed_config import deepspeed_config
from distill.strategies.fsdp import FullyShardedStrategy
from distill.strategies.limits import Facts
from distill.strategies.precision import AUTOCAST, LIGHTNING, ZeroPrecision


@dataclass(frozen=True)
class Spread:
    """A strategy, and what it leaves to be done by others."""

    strategy: Strategy | str
    precision: str
    """Lightning's name of the precision."""
    clips: bool = False
    """Whether it cuts the gradient's norm by itself."""


def build(name: StrategyName, training: Training, machine: Machine, facts: Facts) -> Spread:
    """Return how a training is spread over devices. Raise UserError for a bad file of DeepSpeed's keys."""
    precision, timeout = LIGHTNING[facts.precision], patience(machine.timeout, gpu=facts.gpu)
    match name:
        case "auto" | "ddp" if facts.devices == 1:
            return Spread("auto", precision)
        case "auto" | "ddp":
            return Spread(DDPStrategy(timeout=timeout, find_unused_parameters=facts.leaves_out), precision)
        case "fsdp":
            return Spread(FullyShardedStrategy(offload=machine.fsdp.offload, gpu=facts.gpu, timeout=timeout), precision)
        case "deepspeed_1" | "deepspeed_2" | "deepspeed_3":
            from distill.strategies.zero import ZeroStrategy  # DeepSpeed takes seconds to import

            config = deepspeed_config(int(name[-1]), training, machine.deepspeed, facts)
            autocast = ZeroPrecision(AUTOCAST[facts.precision], "cuda" if facts.gpu else "cpu")
            return Spread(ZeroStrategy(config, autocast, timeout=timeout), "32-true", clips=True)
