"""Adapters in peft's format: how one is put into a model, written to a folder and read from it."""

import copy
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from configs.adapters import NOT_HERE
from configs.errors import suggest
from distill.adapted_model import ACTIVE, Model, switched_off, transformer
from distill.adapter_folder import BASE, CONFIG, WEIGHTS
from distill.adapter_weights import as_vectors, hold_ranks, named_for, with_head_of, without_ranks
from distill.errors import ModelError
from distill.without import without

with without("bitsandbytes"):  # it imports torch's compiler, 2 s of each start; no layer of its is adapted here
    from peft import AdaLoraConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
    from peft.utils.save_and_load import get_base_model_state_dict

NONE = "none"
"""In place of a folder: no adapter."""


def save(model: PeftModel, folder: Path) -> None:
    """Write the active adapter, with those below it in folders of their names, and the model's configuration: labels
    and sizes. The frozen model itself is written beside them only where it lies nowhere else.
    """
    inner = transformer(model)
    name = inner.name_or_path or ""
    place = Path(name)
    alone = not name or (place.name == BASE and is_adapter(place.parent))
    for config in model.peft_config.values():  # found from any folder
        config.base_model_name_or_path = str(place.resolve()) if name and place.is_dir() else name
        if alone and isinstance(config, LoraConfig):  # its base is what PiSSA left of it: not to be taken from again
            config.init_lora_weights = True
    hold_ranks(model.active_peft_config, inner, ACTIVE)
    with without_ranks(model.active_peft_config):
        model.save_pretrained(str(folder), save_embedding_layers=False)
    if alone:
        _save_base(model, folder / BASE)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form for a card, with nothing filled in
    inner.config.architectures = [type(inner).__name__]
    inner.config.save_pretrained(folder)


def _save_base(model: PeftModel, folder: Path) -> None:
    """Write the frozen model that the adapter stands in: as it was before it was adapted, or what PiSSA left of it."""
    inner = transformer(model)
    base = type(inner)(copy.deepcopy(inner.config))
    with switched_off(model):
        weights = get_base_model_state_dict(model).items()  # with learned tokens, modules trained whole are still in it
    kept = {name.replace(".original_module.", "."): value for name, value in weights if ".modules_to_save." not in name}
    base.load_state_dict(kept)
    base.save_pretrained(folder)


def is_adapter(folder: Path | None) -> bool:
    """Whether a folder holds an adapter."""
    return folder is not None and (folder / CONFIG).is_file()


def own_parameters(folder: Path | None) -> int | None:
    """Return how many numbers the adapter of a folder holds; none where it is no adapter."""
    if folder is None or not is_adapter(folder):
        return None
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return sum(int(math.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118


def base_of(folder: Path, where: str) -> str:
    """Return the folder or hub name of the frozen model an adapter belongs to."""
    if (folder / BASE).is_dir():
        return str(folder / BASE)
    named = _section(folder, where).get("base_model_name_or_path")
    if not named:
        raise ModelError(f"{where}: {folder / CONFIG} names no `base_model_name_or_path`")
    return str(named)


def read_config(folder: Path, where: str) -> PeftConfig:
    """Read the configuration of an adapter. Raise ModelError where there is none, or of a method that is not known."""
    if not is_adapter(folder):
        raise ModelError(f"{where}: {folder} holds no {CONFIG}")
    method = _section(folder, where).get("peft_type")
    if reason := NOT_HERE.get(str(method).lower()):
        raise ModelError(f"{where}: {folder / CONFIG} is of `{method}`, which {reason}")
    known: Mapping[Any, Any] = PEFT_TYPE_TO_CONFIG_MAPPING
    if method not in known:
        raise ModelError(f"{where}: {folder / CONFIG} is of the unknown method `{method}`{suggest(str(method), known)}")
    found: PeftConfig = known[method].from_pretrained(str(folder))
    return found


def stack(folder: Path, where: str) -> list[Path]:
    """Return the folders of an adapter and of those it stands on, the lowest first."""
    under = getattr(read_config(folder, where), "under", ())
    return [*(path for name in under for path in stack(folder / name, where)), folder]


def attach(
    model: PreTrainedModel, folder: Path, where: str, *, trainable: bool = False, below: str | None = None
) -> PeftModel:
    """Wrap a model in the adapter of a folder, and in those it stands on or attends over. `below` is the folder of
    another one to stand on in place of the lowest, or NONE.

    Raise ModelError where the adapter's weights are not exactly those its configuration asks for.
    """
    *lower, top = stack(folder, where)
    if below is not None and not lower:
        raise ModelError(f"{where}: {folder} stands on no adapter whose place {below} could take")
    if below is not None:
        lower[:1] = [] if below == NONE else stack(Path(below).expanduser(), where)
    under = {f"below_{number}": path for number, path in enumerate(lower)}
    members = {name: folder / name for name in getattr(read_config(folder, where), "members", ())}
    adapted: PeftModel | None = None
    for name, path in {**under, **members}.items():
        adapted = add(adapted or model, path, name, where, head=False)
    return add(adapted or model, top, ACTIVE, where, trainable=trainable, under=tuple(under))


def add(
    model: Model,
    folder: Path,
    name: str,
    where: str,
    *,
    trainable: bool = False,
    under: Sequence[str] = (),
    head: bool = True,
) -> PeftModel:
    """Add the adapter of a folder under a name, and make it the active one, above those named in `under`, which the
    model holds. Without its `head` it serves others, that stand on it or attend over it.
    """
    config = read_config(folder, where)
    members: list[str] = getattr(config, "members", [])
    if members and not head:
        raise ModelError(f"{where}: {folder} is a fusion; nothing stands on one or attends over one")
    config = as_vectors(config) if trainable else config
    config.inference_mode = not trainable
    config.base_model_name_or_path = None  # it is put into the model at hand, wherever that lies
    if hasattr(config, "under"):
        config.under = list(under)
    try:
        model = put(model, config, name)
        weights = named_for(transformer(model), load_peft_weights(str(folder), device="cpu"))
        weights = weights if head else with_head_of(transformer(model), weights)
        found: Any = set_peft_model_state_dict(model, weights, name)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{where}: {folder} does not fit the model: {str(error).splitlines()[0]}") from error
    with without_ranks(config):
        wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    lacking = [key for key in wanted if key not in weights]
    besides = [key for key in found.unexpected_keys if key != "prompt_embeddings"]
    if lacking or besides:
        what = f"lacks {', '.join(lacking[:3])}" if lacking else f"has besides {', '.join(besides[:3])}"
        raise ModelError(f"{where}: {folder / WEIGHTS} {what}")
    model.set_adapter(name)
    return model if trainable else model.requires_grad_(False)


def put(model: Model, config: PeftConfig, name: str) -> PeftModel:
    """Put a new adapter under a name into a model."""
    with warnings.catch_warnings():
        # of normalisations, which LN tuning is for, and of names within that of our tuner: it tells them apart
        warnings.filterwarnings("ignore", message="Unsupported layer type|Adapter name", category=UserWarning)
        if isinstance(config, AdaLoraConfig):  # whose pattern names matrices, where LoRA's names modules
            warnings.filterwarnings("ignore", message="The following rank_pattern keys", category=RuntimeWarning)
        if not isinstance(model, PeftModel):
            return cast(PeftModel, get_peft_model(model, config, name))
        model.add_adapter(name, config)
    return model


def _section(folder: Path, where: str) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except ValueError as error:
        raise ModelError(f"{where}: {folder / CONFIG} is no JSON: {error}") from error
