"""Put the adapter of a section around a frozen model."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from peft import PeftConfig, PeftModel
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from configs.adapters import AnyAdapter, Bottleneck, Fusion, MixAndMatch, Peft, Prefix, PromptTuning, PTuning
from configs.data import Task
from configs.errors import suggest
from distill import adapted_model, adapters
from distill.capture import probe
from distill.errors import ModelError
from distill.models import Loaded
from students.adapters.families import matching
from students.adapters.fused import fused
from students.adapters.methods import Target, ends_of, peft_config
from students.adapters.mixed import learn_in_fp32
from students.adapters.modular.config import ModularConfig
from students.adapters.register import register

WHERE = "student.adapter"
Held = dict[str, tuple[Path, str]]
"""Adapters that another one stands on or attends over: by name the folder, and the key it was given under."""
_FAULTS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)
_NAMED = ("modular_parts", "modular_shared", "modules_to_save")
"""What holds something of each adapter by the adapter's name."""


def build(section: AnyAdapter, loaded: Loaded, task: Task) -> PeftModel:
    """Wrap a loaded model; what trains afterwards is in fp32. Raise ModelError for what does not fit."""
    register()
    model = loaded.model
    if isinstance(model, PeftModel):
        raise ModelError(
            f"{WHERE}: {loaded.source} is itself an adapter, and another goes into the model it belongs to "
            f"({adapted_model.transformer(model).name_or_path}); that one can teach there (stages.….adapters)"
        )
    target = Target(model, task_type(model, task), _whole(section, loaded, task), WHERE)
    config, held = _fusion(section, target) if isinstance(section, Fusion) else _alone(section, target)
    _check_names(held)
    _check_apart(model, held)
    adapted: PeftModel | None = None
    for name, (folder, where) in held.items():
        adapted = adapters.add(adapted or model, folder, name, where, head=False)
    if isinstance(section, PromptTuning | PTuning):
        _check_vectors(section.kind, model)
    made = _wrap(adapted or model, config)
    if isinstance(section, Peft):
        _try(section, made)
    _go_on_from(held, made)
    learn_in_fp32(made)
    _check_new(loaded, made)
    _check_apart(made, held)
    return made


def _fusion(section: Fusion, target: Target) -> tuple[PeftConfig, Held]:
    held = {name: (Path(folder).expanduser(), f"{WHERE}.of.{name}") for name, folder in section.of.items()}
    members = {name: adapters.read_config(folder, where) for name, (folder, where) in held.items()}
    config = fused(members, target.model, section.regularisation, f"{WHERE}.of")
    config.task_type, config.modules_to_save = target.task_type, list(target.whole) or None
    return config, held


def _alone(section: AnyAdapter, target: Target) -> tuple[PeftConfig, Held]:
    config, where = peft_config(section, target), f"{WHERE}.on"
    folders = section.on if isinstance(section, Bottleneck | MixAndMatch | Prefix) else ()
    lower = [path for folder in folders for path in adapters.stack(Path(folder).expanduser(), where)]
    held = {f"below_{number}": (path, where) for number, path in enumerate(lower)}
    if isinstance(config, ModularConfig):
        config.under = list(held)
    return config, held


def _wrap(model: PreTrainedModel | PeftModel, config: PeftConfig) -> PeftModel:
    try:
        made = adapters.put(model, config, adapted_model.ACTIVE)
    except _FAULTS as error:
        raise ModelError(f"{WHERE}: peft refuses: {str(error).splitlines()[0]}") from error
    made.set_adapter(adapted_model.ACTIVE)
    return made


@torch.no_grad()
def _check_vectors(kind: str, model: PreTrainedModel) -> None:
    """Raise ModelError for a model that reads its tokens' vectors otherwise than its tokens: Marian scales them itself,
    and peft, which hands over vectors, would have it read all tokens √d times too small.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    ids, training = torch.tensor([[1, 2, 3]], device=model.device), model.training
    model.eval()
    tokens, vectors = (
        body(**inputs).last_hidden_state
        for inputs in ({"input_ids": ids}, {"inputs_embeds": model.get_input_embeddings()(ids)})
    )
    model.train(training)
    if not torch.allclose(tokens, vectors, atol=1e-3):
        raise ModelError(
            f"{WHERE}.kind: `{kind}` hands vectors to the model, and {model.config.model_type} does to tokens what it "
            "does not do to vectors; `prefix` is as small"
        )


def _try(section: Peft, made: PeftModel) -> None:
    """Raise ModelError for a method by name that does not run in the model at hand: not all do in all."""
    try:
        probe(cast(PreTrainedModel, made), [0, 0])
    except _FAULTS as error:
        raise ModelError(
            f"{WHERE}.method: `{section.method}` does not run in {made.config.model_type}: {str(error).splitlines()[0]}"
        ) from error


@torch.no_grad()
def _go_on_from(held: Iterable[str], adapted: PeftModel) -> None:
    """Let what learns whole, normalisations say, begin as the highest adapter below has it, which stands on it."""
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper) and adapted_model.ACTIVE in module.modules_to_save:
            copies = module.modules_to_save
            for other in [name for name in held if name in copies][-1:]:
                for own, learnt in zip(
                    copies[adapted_model.ACTIVE].parameters(), copies[other].parameters(), strict=True
                ):
                    own.copy_(learnt)


def task_type(model: PreTrainedModel, task: Task) -> str:
    """Return peft's name of a task."""
    match task.kind:
        case "classification" | "regression":
            return "SEQ_CLS"
        case "tagging":
            return "TOKEN_CLS"
        case "generation":
            return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
        case "text" | "masked_lm":  # peft has no type of its own for the latter
            return "FEATURE_EXTRACTION"


def _whole(section: AnyAdapter, loaded: Loaded, task: Task) -> tuple[str, ...]:
    """Return the modules that train whole: the task's head, what came without weights, what the section names."""
    model = loaded.model
    named = list(section.also)
    for end in named:
        if not (found := matching(model, [end])):
            raise ModelError(f"{WHERE}.also: no module ends in `{end}`{suggest(end, ends_of(model, end))}")
        _check_passed(model, end, found)
    if task.kind in ("classification", "regression", "tagging"):
        children = dict(model.named_children())
        named += [name for name in children if name != model.base_model_prefix and list(children[name].parameters())]
    named += [name.rsplit(".", 1)[0] for name in adapted_model.drawn(loaded.new)]
    covered = [name for name in dict.fromkeys(named) if not any(name.startswith(f"{other}.") for other in named)]
    return tuple(covered)


def _check_passed(model: PreTrainedModel, end: str, names: Sequence[str]) -> None:
    """Raise ModelError for modules that no pass goes through, as T5's `shared`: copies of them would learn nothing."""
    passed: list[str] = []
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: passed.append(name)) for name in names
    ]
    probe(model, [0, 0])
    for hook in hooks:
        hook.remove()
    if not passed:
        weights = {id(weight) for name in names for weight in model.get_submodule(name).parameters()}
        others = [
            name
            for name, module in model.named_modules()
            if name not in names and weights & {id(weight) for weight in module.parameters(recurse=False)}
        ]
        what = f"; its weights are those of {', '.join(others)}" if others else ""
        raise ModelError(f"{WHERE}.also: no pass goes through `{end}`, so that it would learn nothing{what}")


def _check_new(loaded: Loaded, adapted: PeftModel) -> None:
    """Raise ModelError where weights that came from nowhere would stay as they were drawn."""
    if lost := adapted_model.unlearnt(adapted, loaded.new):
        raise ModelError(f"{WHERE}: {loaded.source} comes without {', '.join(lost[:3])}, and nothing would train them")


def _check_names(names: Iterable[str]) -> None:
    """Raise ModelError for names of a fusion's members that modules of torch, or folders, cannot have."""
    for name in names:
        if not re.fullmatch(r"[\w-]+", name) or name == adapted_model.ACTIVE or hasattr(nn.ModuleDict(), name):
            what = "is taken" if re.fullmatch(r"[\w-]+", name) else "is not of letters, digits, - and _ alone"
            raise ModelError(f"{WHERE}.of: the name `{name}` {what}; give the adapter another one")


def _check_apart(model: PreTrainedModel | PeftModel, names: Iterable[str]) -> None:
    """Raise ModelError for an adapter's name that something else in the model has too: by it, peft tells which weights
    are not the one's that it saves.
    """
    steps = {step for key in model.state_dict() for step in pairwise(("", *key.split(".")))}
    others = {name for holder, name in steps if holder not in _NAMED}
    if shared := sorted(others & set(names)):
        raise ModelError(
            f"{WHERE}.of: the name `{shared[0]}` is that of a part of the model; give the adapter another one"
        )
