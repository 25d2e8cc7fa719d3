"""The tuner: puts parts where an adapter's configuration says, and keeps peft's promises for them.

Save, load, swap, delete, disable and unload are peft's own. What differs stands here: which adapters run below the
active one, what parts share, and that weights lie deeper under an adapter's name than peft's own do.
"""

import copy
import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.adapted_model import Tuner
from distill.capture import prepare
from students.adapters.families import layer_of
from students.adapters.modular.config import ModularConfig
from students.adapters.modular.experts import Experts
from students.adapters.modular.invertible import Coupling, Inverse
from students.adapters.modular.layer import Drop, ModularLayer
from students.adapters.modular.make import Place, make, network_of
from students.adapters.modular.part import Part
from students.adapters.modular.prefix import Prefix

_KEY = re.compile(r"\b(modular_\w+)\.")


class ModularModel(BaseTuner, Tuner):
    """A model with adapters of ours."""

    prefix = "modular_"
    tuner_layer_cls = ModularLayer
    target_module_mapping: dict[str, list[str]] = {}
    uses_shared_state = True

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Put the parts of an adapter into the model."""
        if "modular_shared" not in self._modules:
            self.modular_shared = nn.ModuleDict()
            self.drop = Drop()
            self._taps: list[RemovableHandle] = []
        marked = [(weight, weight.requires_grad) for weight in self.modular_shared.parameters()]
        self.modular_shared[adapter_name] = nn.ModuleDict()
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for weight, learns in marked:  # as peft keeps the marks of all that was in the model before
            weight.requires_grad_(learns)
        self._join_inverses(adapter_name)
        self._tap_again()
        if any(part["kind"] == "prefix" for part in self.peft_config[adapter_name].parts):  # type: ignore[attr-defined]
            prepare(self.model)  # no other attention function looks at learned keys

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        spec = next(part for part in cast(ModularConfig, peft_config).parts if re.fullmatch(part["at"], current_key))
        number = layer_of(current_key)
        if number in spec.get("leave_out", ()):
            return
        layer = target if isinstance(target, ModularLayer) else ModularLayer(target, self.drop)
        part = self._make(spec, adapter_name, layer)
        part.layer = number
        layer.add(adapter_name, part)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _check_tied_modules(self, model: nn.Module, peft_config: PeftConfig) -> None:
        # parts stand around an embedding and leave its weights, and their tie, alone; only whole modules can cut it
        whole_only = copy.copy(peft_config)
        whole_only.target_modules = None  # type: ignore[attr-defined]
        super()._check_tied_modules(model, whole_only)

    def _make(self, spec: dict[str, Any], adapter: str, layer: ModularLayer) -> Part:
        if spec["kind"] == "inverse":
            return Inverse()
        shared: nn.ModuleDict = self.modular_shared[adapter]  # type: ignore[assignment]
        return make(spec, Place(layer.get_base_layer(), layer.modular_parts, shared, self.model.config))

    def _join_inverses(self, adapter: str) -> None:
        """Let what goes back to the vocabulary undo what the embeddings go through: either may be injected first."""
        parts = [layer.modular_parts[adapter] for layer in self._layers() if adapter in layer.modular_parts]
        couplings = [part for part in parts if isinstance(part, Coupling)]
        for part in parts:
            if isinstance(part, Inverse) and not couplings:
                raise ValueError(f"the adapter `{adapter}` has an inverse, and nothing that it would undo")
            if isinstance(part, Inverse):
                part.undo(couplings[0])

    def delete_adapter(self, adapter_name: str) -> None:
        """Take an adapter out, with what its parts share."""
        super().delete_adapter(adapter_name)
        del self.modular_shared[adapter_name]
        self._tap_again()

    def _tap_again(self) -> None:
        """Hook the modules whose inputs parts take; peft may just have put its own wrappers around them."""
        self._untap()
        specs = [spec for config in self.peft_config.values() for spec in config.parts if "tap" in spec]  # type: ignore[attr-defined]
        for key, layer in self.model.named_modules():
            spec = next((spec for spec in specs if re.fullmatch(spec["at"], key)), None)
            if spec is not None and isinstance(layer, ModularLayer):
                end, tapped = spec["tap"]
                found = self.model.get_submodule(key.removesuffix(end) + tapped)
                self._taps.append(found.register_forward_pre_hook(layer.tap))

    def _untap(self) -> None:
        while self._taps:
            self._taps.pop().remove()

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        if merge:
            self._check_merge_allowed()  # before anything is changed
        self._untap()
        return super()._unload_and_optionally_merge(merge, *args, **kwargs)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # peft's own copies `weight` to the new module, which modules without one do not have
        setattr(parent, child_name, new_module)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one, above those it stands on."""
        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        for name, shared in self.modular_shared.items():  # outside the model, where peft does not look
            shared.requires_grad_(name in names and not inference_mode)
        below = [name for top in names for name in getattr(self.peft_config[top], "under", [])]
        if not below:
            return
        for module in self.model.modules():
            if isinstance(module, ModularLayer):
                module.set_adapter([*below, *names], inference_mode=inference_mode)
                module.set_requires_grad(below, False)
            if isinstance(module, ModulesToSaveWrapper):
                _use_whole(module, names, below)

    def _check_merge_allowed(self) -> None:
        """Raise ValueError before anything is unloaded where a part cannot be merged."""
        for part in self.active_parts():
            if not part.mergeable:
                part.merge_into(part, 1.0)

    def active_parts(self) -> list[Part]:
        """Return the parts that run."""
        return [part for layer in self._layers() for part in layer.running()]

    def drop_lowest(self, adapter: str, layers: int) -> None:
        """Take the parts of the lowest layers out of an adapter for good (AdapterDrop; Rücklé et al. 2021, section 3).

        Raise ValueError where none would be left.
        """
        placed = [layer for layer in self._layers() if adapter in layer.modular_parts]
        dropped = [layer for layer in placed if cast(Part, layer.modular_parts[adapter]).is_below(layers)]
        if not any(cast(Part, layer.modular_parts[adapter]).layered for layer in placed if layer not in dropped):
            raise ValueError(f"without the parts of the lowest {layers} layers, no part of the adapter is left")
        for layer in dropped:
            del layer.modular_parts[adapter]
        for spec in self.peft_config[adapter].parts:  # type: ignore[attr-defined]
            if spec["kind"] not in ("coupling", "inverse", "experts"):
                spec["leave_out"] = sorted({*spec.get("leave_out", ()), *range(layers)})

    def mix_in_original(self, adapter: str, share: float) -> None:
        """Mix the model without an adapter's experts in, 0 … 1, for good. Raise ValueError where it has none."""
        parts = [layer.modular_parts[adapter] for layer in self._layers() if adapter in layer.modular_parts]
        found = [part for part in parts if isinstance(part, Experts)]
        if not found:
            raise ValueError("the adapter has no experts")
        for part in found:
            part.original = share
        for spec in self.peft_config[adapter].parts:  # type: ignore[attr-defined]
            if spec["kind"] == "experts":
                spec["original"] = share

    def settle(self) -> None:
        """Let prefixes be what their networks made of them."""
        for layer in self._layers():
            for part in layer.modular_parts.values():
                if isinstance(part, Prefix):
                    part.settle()
        for adapter, config in self.peft_config.items():
            shared: nn.ModuleDict = self.modular_shared[adapter]  # type: ignore[assignment]
            for spec in config.parts:  # type: ignore[attr-defined]
                if spec["kind"] == "prefix" and spec["width"] is not None:
                    spec["width"] = None
                    del shared[network_of(spec["side"])]

    def _layers(self) -> list[ModularLayer]:
        return [module for module in self.model.modules() if isinstance(module, ModularLayer)]

    def begin_pass(self) -> None:
        """Draw how many of the lowest layers go without parts of the active adapters, not of those they stand on."""
        configs = [self.peft_config[name] for name in self.active_adapters]
        self.drop.draw(max(config.drop for config in configs), self.active_adapters)  # type: ignore[attr-defined]

    def penalty(self) -> Tensor | None:
        """Return what the active parts add to the loss by themselves."""
        found = [value for part in self.active_parts() if (value := part.penalty()) is not None]
        return torch.stack(found).sum() if found else None

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:  # peft would drop it without a word
            raise ValueError("rows of one batch cannot go through different adapters of this kind")
        return nullcontext()

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Take the adapter's name out, wherever under `modular_…` the weight lies."""
        found = list(_KEY.finditer(key))
        if not found:
            return super()._remove_adapter_name_from_key(key, adapter_name)
        end = found[-1].end()
        return key[:end] + key[end:].removeprefix(f"{adapter_name}.")


def _use_whole(wrapper: ModulesToSaveWrapper, names: list[str], below: list[str]) -> None:
    """Use what an adapter below trained whole, its embeddings say, where no active one has the module: peft would take
    the model's own.
    """
    held = [name for name in below if name in wrapper.modules_to_save]
    if held and not any(name in wrapper.modules_to_save for name in names):
        wrapper.set_adapter(held[-1], inference_mode=True)
