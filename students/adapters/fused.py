"""The configuration of a fusion: its attention sits where all of its members have a network."""

from collections.abc import Mapping

from peft import PeftConfig

from distill.errors import ModelError
from students.adapters.modular.config import ModularConfig
from students.adapters.sites import Spec


def fused(members: Mapping[str, PeftConfig], regularisation: float, where: str) -> ModularConfig:
    """Return the configuration. Raise ModelError for members that are no bottlenecks, or sit at different places."""
    placed = {name: _networks(config) for name, config in members.items()}
    for name, places in placed.items():
        if not places:
            raise ModelError(f"{where}.{name}: this adapter is no bottleneck, and only those are fused")
    first, *others = placed.values()
    if any(other != first for other in others):
        what = "the adapters sit at different places, or enter there in different ways"
        raise ModelError(f"{where}: {what}; a fusion attends where all do the same")
    numbers = {"kind": "fusion", "members": list(members), "regularisation": regularisation}
    return ModularConfig(
        parts=[{key: place[key] for key in place if key != "form"} | numbers for place in first],
        members=list(members),
        task_type=next(iter(members.values())).task_type,
    )


def _networks(config: PeftConfig) -> list[Spec]:
    """Return where an adapter's networks sit, how they enter there, and the layers left out."""
    if not isinstance(config, ModularConfig):
        return []
    networks = [part for part in config.parts if part["kind"] == "bottleneck"]
    return [{key: part[key] for key in ("at", "form", "leave_out") if key in part} for part in networks]
