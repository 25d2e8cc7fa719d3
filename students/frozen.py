"""Which weights of a model stay as they are."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate

from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.errors import ModelError


def weights_of(model: PreTrainedModel, parts: Sequence[str], where: str) -> set[str]:
    """Return the names of all weights in parts of a model, as its parameters are listed: tied ones under their first.

    A part is `embeddings`, `encoder`, `decoder`, or a path that names of weights begin with. Raise ModelError for one
    that names nothing, and where nothing is left to train.
    """
    held = {id(weight) for part in parts for weight in _part(model, part, where)}
    named = list(model.named_parameters())
    if named and all(id(weight) in held for _, weight in named):
        raise ModelError(f"{where}: {', '.join(parts)} are all of the model; nothing is left to train")
    return {name for name, weight in named if id(weight) in held}


def _part(model: PreTrainedModel, part: str, where: str) -> list[Tensor]:
    roles = _roles(model)
    if part in roles:
        return [weight for module in roles[part] for weight in module.parameters()]
    every = list(model.named_parameters(remove_duplicate=False))
    found: list[Tensor] = [weight for name, weight in every if name == part or name.startswith(f"{part}.")]
    if not found:
        raise ModelError(f"{where}: the model has no `{part}`{_near(part, roles, [name for name, _ in every])}")
    return found


def _roles(model: PreTrainedModel) -> dict[str, list[nn.Module]]:
    """Return what parts are called in every architecture."""
    roles: dict[str, list[nn.Module]] = {"embeddings": list(_embeddings(model))}
    if model.config.is_encoder_decoder:
        roles |= {"encoder": [model.get_encoder()], "decoder": [model.get_decoder()]}
    return roles


def _embeddings(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the embeddings that stand before the layers, not those of distances inside of them, as T5 has."""
    for child in module.children():
        if isinstance(child, nn.Embedding):
            yield child
        elif not isinstance(child, nn.ModuleList):
            yield from _embeddings(child)


def _near(part: str, roles: Iterable[str], names: Sequence[str]) -> str:
    """Return which part was meant, and the upper parts there are."""
    paths = list(dict.fromkeys(path for name in names for path in accumulate(name.split("."), "{}.{}".format)))
    upper = [path for path in paths if path.count(".") <= 1]
    near = get_close_matches(part, [*roles, *paths], n=1, cutoff=0.6)
    meant = f"; did you mean `{near[0]}`?" if near else ";"
    return f"{meant} There are: {', '.join(dict.fromkeys([*roles, *upper]))}"
