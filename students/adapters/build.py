"""Put the adapter of a section around a frozen model."""

from pathlib import Path

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel

from configs.adapters import AnyAdapter, Bottleneck, Fusion, MixAndMatch, Prefix
from configs.data import Task
from configs.errors import suggest
from distill import adapters
from distill.errors import ModelError
from distill.models import Loaded
from students.adapters.families import matching
from students.adapters.fused import fused
from students.adapters.methods import Target, leaves, peft_config
from students.adapters.modular.config import ModularConfig
from students.adapters.register import register

WHERE = "student.adapter"


def build(section: AnyAdapter, loaded: Loaded, task: Task) -> PeftModel:
    """Wrap a loaded model; what trains afterwards is in fp32. Raise ModelError for what does not fit."""
    register()
    model = loaded.model
    target = Target(model, task_type(model, task), _whole(section, loaded, task), WHERE)
    below = _below(section)
    adapted: PeftModel | None = None
    for name, folder in below.items():
        adapted = adapters.add(adapted or model, Path(folder).expanduser(), name, f"{WHERE}.{name}", head=False)
    if isinstance(section, Fusion):
        assert adapted is not None  # a section has two members at least
        members = {name: adapted.peft_config[name] for name in section.of}
        config: PeftConfig = fused(members, section.regularisation, f"{WHERE}.of")
    else:
        config = peft_config(section, target)
    if isinstance(config, ModularConfig):
        config.modules_to_save = config.modules_to_save or list(target.whole) or None
        config.under = [] if isinstance(section, Fusion) else list(below)
    made = _wrap(adapted or model, config)
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft leaves copies of heads and norms in the base's type
    _check_new(loaded, made)
    return made


def _wrap(model: PreTrainedModel | PeftModel, config: PeftConfig) -> PeftModel:
    try:
        made = adapters.put(model, config, adapters.ACTIVE)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{WHERE}: peft refuses: {str(error).splitlines()[0]}") from error
    made.set_adapter(adapters.ACTIVE)
    return made


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
        if not matching(model, [end]):
            raise ModelError(f"{WHERE}.also: no module ends in `{end}`{suggest(end, leaves(model))}")
    if task.kind in ("classification", "regression", "tagging"):
        children = dict(model.named_children())
        named += [name for name in children if name != model.base_model_prefix and list(children[name].parameters())]
    named += [name.rsplit(".", 1)[0] for name in _drawn(loaded)]
    covered = [name for name in dict.fromkeys(named) if not any(name.startswith(f"{other}.") for other in named)]
    return tuple(covered)


def _drawn(loaded: Loaded) -> list[str]:
    """Return the weights that came from nowhere and have to be trained. A bias begins as zeros and may stay so: with
    that of a vocabulary, peft would train a copy of the weights beside it, which are the embeddings.
    """
    return [name for name in loaded.new if not name.endswith(("position_ids", "bias"))]


def _below(section: AnyAdapter) -> dict[str, str]:
    match section:
        case Fusion():
            return section.of
        case Bottleneck() | MixAndMatch() | Prefix():
            return {f"below_{number}": folder for number, folder in enumerate(section.on)}
        case _:
            return {}


def _check_new(loaded: Loaded, adapted: PeftModel) -> None:
    """Raise ModelError where weights that came from nowhere would stay as they were drawn."""
    trained = adapters.trained_names(adapted)
    if lost := [name for name in _drawn(loaded) if name not in trained]:
        raise ModelError(f"{WHERE}: {loaded.source} comes without {', '.join(lost[:3])}, and nothing would train them")
