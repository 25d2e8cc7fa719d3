"""The configuration of a fusion: its attention sits where all of its members have a network."""

from collections.abc import Iterator, Mapping

from peft import PeftConfig
from transformers import PreTrainedModel

from distill.errors import ModelError
from students.adapters.families import matching
from students.adapters.modular.config import ModularConfig
from students.adapters.sites import Spec


def fused(
    members: Mapping[str, PeftConfig], model: PreTrainedModel, regularisation: float, where: str
) -> ModularConfig:
    """Return the configuration. Raise ModelError for members that are no bottlenecks, have more than those, or sit at
    different places.
    """
    placed = {name: _networks(config, model, f"{where}.{name}") for name, config in members.items()}
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


def _networks(config: PeftConfig, model: PreTrainedModel, where: str) -> list[Spec]:
    """Return where an adapter's networks sit, how they enter there, and the layers left out."""
    networks = [part for part in getattr(config, "parts", ()) if part["kind"] == "bottleneck"]
    if not isinstance(config, ModularConfig) or not networks:
        raise ModelError(f"{where}: this adapter is no bottleneck, and only those are fused")
    if beside := list(_beside(config, model)):
        what = f"was trained with {', and '.join(beside)}, and a fusion attends over its networks alone"
        raise ModelError(f"{where}: this adapter {what}; fuse adapters that were trained without")
    return [{key: part[key] for key in ("at", "form", "leave_out") if key in part} for part in networks]


def _beside(config: ModularConfig, model: PreTrainedModel) -> Iterator[str]:
    """Yield what an adapter does beside its networks, and the key that asked for it: a model has one of it for all
    members. A head, and the pooler before it, are its task's and stay behind.
    """
    kinds = {part["kind"] for part in config.parts}
    if "coupling" in kinds:
        yield "an invertible part (`invertible`)"
    if "prefix" in kinds:
        yield "a prefix (`kind: mix_and_match`)"
    if config.under:
        yield "others below it (`on`)"
    body = "" if model.base_model is model else f"{model.base_model_prefix}."
    whole = matching(model, config.modules_to_save) if config.modules_to_save else []
    if inside := [name for name in whole if name.startswith(body) and "pooler" not in name]:
        more = ", …" if len(inside) > 1 else ""
        yield f"modules of the model that learnt too ({inside[0]}{more}; `norms`, `also`)"
