"""Take an adapter of AdapterHub's over: the same outputs, in a folder that peft and this pipeline load."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from peft import PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from configs.errors import suggest
from distill import adapted_model
from distill.errors import ModelError
from students.adapters.families import family_of
from students.adapters.fused import fused
from students.adapters.hub import demands
from students.adapters.hub.fill import fill, fill_fusion, load
from students.adapters.hub.low_rank import is_low_rank, low_rank
from students.adapters.hub.parts import specs
from students.adapters.hub.places import KNOWN
from students.adapters.hub.read import FUSION_CONFIG, Head, HubAdapter, is_fusion, read, read_fusion
from students.adapters.modular.config import ModularConfig
from students.adapters.register import register

Model = PreTrainedModel | PeftModel
REGULARISATION = 0.01
"""AdapterHub's weight of ‖V − I‖² in a fusion's training."""


def take_over(
    folder: Path, model: PreTrainedModel, task_type: str, *, on: Sequence[Path] = (), head: bool = True
) -> PeftModel:
    """Wrap a model in the adapter or fusion of a folder, above those `on` which it was stacked, lowest first.

    Raise ModelError, naming the key, for what is not computed here.
    """
    register()
    if model.config.model_type not in KNOWN:
        kind = model.config.model_type
        raise ModelError(f"{folder}: adapters of {kind} cannot be taken over{suggest(kind, KNOWN)}")
    if is_fusion(folder):
        return _fusion(folder, model, task_type)
    found, below = read(folder, head=head), [read(path, head=False) for path in on]
    _check_stack([*below, found])
    adapted: Model = model
    for number, other in enumerate(below):
        adapted = _put(other, adapted, f"below_{number}", {"task_type": task_type})
    common: dict[str, Any] = {"task_type": task_type}
    if found.head is not None:
        common["modules_to_save"] = _head_modules(found, found.head, model)
    return _put(found, adapted, adapted_model.ACTIVE, common, under=[f"below_{number}" for number in range(len(below))])


def _put(hub: HubAdapter, model: Model, name: str, common: dict[str, Any], *, under: Sequence[str] = ()) -> PeftModel:
    """Put one adapter into a model, with its weights."""
    inner = adapted_model.transformer(model)
    if is_low_rank(hub):
        updates = low_rank(hub, inner)
        made = _wrap(model, updates.config(common), name)
        updates.fill(made, name)
    else:
        parts = specs(hub, inner, family_of(inner, str(hub.folder)))
        made = _wrap(model, ModularConfig(**common, parts=parts, under=list(under)), name)
        fill(hub, made, name)
    if hub.head is not None:
        _fill_head(hub.head, made, name, hub.folder)
    return made


def _wrap(model: Model, config: PeftConfig, name: str) -> PeftModel:
    config.inference_mode = True
    if not isinstance(model, PeftModel):
        return cast(PeftModel, get_peft_model(model, config, name)).eval()
    model.add_adapter(name, config)
    model.set_adapter(name, inference_mode=True)
    return model.eval()


def _fusion(folder: Path, model: PreTrainedModel, task_type: str) -> PeftModel:
    hub = read_fusion(folder)
    where = str(folder / FUSION_CONFIG)
    demands.fusion(hub.section, where)
    adapted: Model = model
    names = [re.sub(r"[^\w-]", "_", member) for member in hub.members]
    for name, member in zip(names, hub.members, strict=True):
        adapted = _put(read(_member(folder, member), head=False), adapted, name, {"task_type": task_type})
    configs = cast(PeftModel, adapted).peft_config
    strength = REGULARISATION if hub.section.get("regularization", True) else 0.0
    made = _wrap(adapted, fused({name: configs[name] for name in names}, model, strength, where), adapted_model.ACTIVE)
    fill_fusion(hub, made, adapted_model.ACTIVE)
    return made


def _member(folder: Path, name: str) -> Path:
    """Return the folder of an adapter a fusion attends over: inside the fusion's, or beside it."""
    for found in (folder / name, folder.parent / name):
        if found.is_dir():
            return found
    raise ModelError(f"{folder / FUSION_CONFIG}: adapter_names: no folder `{name}` in {folder} or beside it")


def _check_stack(stack: Sequence[HubAdapter]) -> None:
    """Raise ModelError for a stack that AdapterHub computes in another way than one adapter after the other."""
    if len(stack) == 1:
        return
    for number, hub in enumerate(stack):
        for section in hub.sections:
            if section.get("architecture") is not None or section.get("is_parallel"):
                raise ModelError(f"{hub.folder}: only bottlenecks that are not parallel are stacked")
            if not section.get("original_ln_after", True):
                raise ModelError(f"{hub.folder}: original_ln_after: False cannot be taken over in a stack")
            if section.get("original_ln_before", False) != stack[0].sections[0].get("original_ln_before", False):
                raise ModelError(f"{hub.folder}: original_ln_before: a stack is of one kind, {stack[0].folder} differs")
        if number and any("invertible_adapters." in name for name in hub.weights.tensors):
            raise ModelError(f"{hub.folder}: inv_adapter: in a stack AdapterHub runs that of the lowest adapter only")


def _head_modules(hub: HubAdapter, head: Head, model: PreTrainedModel) -> list[str]:
    """Return the model's own last modules that the head replaces."""
    names = sorted({name.split(".", 1)[0] for name in head.tensors})
    children = dict(model.named_children())
    for name in names:
        if name not in children or name == model.base_model_prefix:
            raise ModelError(
                f"{hub.folder}: the head ({', '.join(sorted(head.tensors)[:2])}) is of AdapterHub's own, not of "
                f"{type(model).__name__}; leave it out with --without-head, and train a head of this model's"
            )
    return names


def _fill_head(head: Head, model: PeftModel, adapter: str, folder: Path) -> None:
    inner = adapted_model.transformer(model)
    for name in {name.split(".", 1)[0] for name in head.tensors}:
        own: Any = inner.get_submodule(name)
        given = {key.removeprefix(f"{name}."): value for key, value in head.tensors.items() if key.startswith(name)}
        load(own.modules_to_save[adapter], given, f"{folder}: {name}")
    if head.labels:
        inner.config.id2label = dict(enumerate(head.labels))
        inner.config.label2id = {label: index for index, label in enumerate(head.labels)}
