"""The frozen model inside an adapted one: what of it no adapter touches, and itself once more in another adapter."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.data import Task
from distill import adapted_model, adapters
from distill.adapted_model import Model, transformer
from distill.adapter_folder import CONFIG
from distill.data.labels import permutation
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, describing, has_head, label_names, load_config
from distill.without import without

with without("bitsandbytes"):
    from peft import LoraConfig, PeftModel
    from peft.tuners.adaption_prompt.layer import AdaptedAttention, AdaptedAttentionGPT
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

_WRAPPERS = (".base_layer.", ".original_module.")
"""What an adapter puts into the names of the frozen weights it is around."""
_ADAPTERS = (BaseTunerLayer, AuxiliaryTrainingWrapper, AdaptedAttention, AdaptedAttentionGPT)
"""What an adapter puts around modules; the last two read sizes of layers inside."""
_KEEPING = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` that leave the weights around it alone, in lower case."""


def untouched(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield, with its parent and its name there, each module that no adapter is in or looks into, nor anybody else."""
    inner = transformer(module) if isinstance(module, PeftModel) else module
    for name, child in inner.named_children():
        if isinstance(child, _ADAPTERS):
            continue
        if not child._forward_hooks and not child._forward_pre_hooks:
            yield inner, name, child
        yield from untouched(child)


def changes_frozen_weights(config: PeftConfig) -> bool:
    """Whether an adapter, once it is in a model, has changed the weights around it: most ways LoRA may begin from these
    weights take a part out of them, and some methods may train the model's own biases.
    """
    if getattr(config, "bias", "none") != "none":
        return True
    if not isinstance(config, LoraConfig):
        return False
    init = config.init_lora_weights
    kept = (init.lower() if isinstance(init, str) else init) in _KEEPING  # what else there is, peft may change
    return not kept or config.kasa_config is not None


def twin(model: Model, where: str) -> PreTrainedModel:
    """Return a frozen model once more, without the adapters in it: modules of its own around the very same weights.

    Raise ModelError where an adapter has not left them as they were.
    """
    inner = transformer(model)
    with torch.device("meta"):
        made: PreTrainedModel = type(inner)(copy.deepcopy(inner.config))
    held = _frozen_tensors(inner)
    for path, module in made.named_modules():
        for own in (module._parameters, module._buffers):
            for leaf in [leaf for leaf, tensor in own.items() if tensor is not None]:
                name = f"{path}.{leaf}" if path else leaf
                if name not in held:
                    raise ModelError(f"{where}: the adapter in {inner.name_or_path} hides the frozen model's {name}")
                own[leaf] = held[name]  # type: ignore[assignment]
    made.name_or_path = inner.name_or_path
    made.eval()
    return made


def _frozen_tensors(inner: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights and buffers of the model itself, by their names without adapters."""
    found: dict[str, Tensor] = {}
    for named in (inner.named_parameters(remove_duplicate=False), inner.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            for wrapper in _WRAPPERS:
                name = name.replace(wrapper, ".")
            found[name] = tensor
    return found


def in_adapter(base: Loaded, folder: str, task: Task, labels: tuple[str, ...], where: str) -> Loaded:
    """Return a frozen model in the adapter of a folder, as `distill.models.load` would of the folder, but around the
    weights that are there; other adapters in that model are not in this one. Raise ModelError for an adapter of another
    model, and for one that would change the weights it shares; DataError for one of other classes than `labels`.
    """
    source = ModelSource(folder)
    if source.folder is None or not adapters.is_adapter(source.folder):
        raise ModelError(f"{where}: {folder} holds no {CONFIG}")
    if changes_frozen_weights(adapters.read_config(source.folder, where)):
        raise ModelError(f"{where}: {folder} changes the frozen weights (by its init or bias), which others use")
    config = load_config(describing(source, where), where)
    own_head = has_head(config, task)
    if own_head and task.has_classes:
        permutation(label_names(config), labels, f"{where}: {folder}")
    alone = twin(base.model, where)
    _check_belongs(alone, source.folder, where)
    if own_head:
        alone.config.id2label, alone.config.label2id = config.id2label, config.label2id
    adapted = adapters.attach(alone, source.folder, where)
    new = adapted_model.unlearnt(adapted, base.new)
    trained = task.kind != "text" and own_head and not new
    return replace(base, model=cast(PreTrainedModel, adapted), source=folder, trained_head=trained, new=new)


def _check_belongs(model: PreTrainedModel, folder: Path, where: str) -> None:
    """Raise ModelError where an adapter was trained in a model of other weights. Of one on the hub only the name is
    known.
    """
    named, given = adapters.base_of(folder, where), model.name_or_path or ""
    base = Path(named).expanduser()
    if named == given or not base.is_dir() or (given and base.resolve() == Path(given).expanduser().resolve()):
        return
    body, here = f"{model.base_model_prefix}.", given or "the model it is to teach in"
    own = {name.removeprefix(body): tensor for name, tensor in model.state_dict().items()}
    compared = False
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  (no mapping)
                if (weight := own.get(name.removeprefix(body))) is None:  # a head, or a body saved without its name
                    continue
                if not torch.equal(stored.get_tensor(name).to(weight), weight):
                    raise ModelError(f"{where}: {folder} belongs to {named}, whose {name} is not that of {here}")
                compared = True
    if not compared:
        raise ModelError(f"{where}: {folder} belongs to {named}, which has no weight in common with {here}")
