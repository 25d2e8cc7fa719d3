"""Linear layers of a frozen model, held ready for the products they are used in."""

from functools import cache
from typing import cast

import torch
from torch import Tensor, nn

from distill.few_shapes import by_few_shapes
from distill.frozen_model import untouched


class PackedLinear(nn.Module):
    """A linear layer whose weights lie as the CPU's kernels (oneDNN) read them; it has no gradient.

    `F.linear` brings the weights into that order at every call and adds the bias in a pass of its own: 5–10 % of the
    time of a product with 300 to 1,600 rows, in fp32 and in bf16.
    """

    def __init__(self, layer: nn.Linear) -> None:
        """Pack a layer."""
        super().__init__()
        self.dtype = layer.weight.dtype
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach().clone()

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows [… inputs] times the weights, plus the bias."""
        if self.dtype == torch.bfloat16:
            return by_few_shapes(self._product, rows.to(self.dtype))
        return self._product(rows.to(self.dtype))

    def _product(self, rows: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")
        return product


def settle(model: nn.Module, autocast: torch.dtype | None, device: torch.device) -> None:
    """Prepare the linear layers of a frozen model that computes under autocast to a type, or without (none).

    Autocast casts weights that have no gradient anew at each use; here it is done once, to the same values. On a CPU
    the weights are packed as well. What an adapter is in, or looks into, stays as it is: it may read weights. Layers
    that share their weights share what becomes of them.
    """
    for places in _alike(model):  # one at a time: the old weights go before the next new ones come
        _settle(places, autocast, device)
    if device.type == "cpu":
        # a file that was loaded stays in memory as long as one tensor lies in it; what is quantised lies in none
        for parameter in model.parameters():
            if type(parameter) is nn.Parameter:
                parameter.data = parameter.data.clone()


def _alike(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Return where linear layers lie, those together that have the same weights; none whose weights are used by a layer
    that has to stay.
    """
    free = [(parent, name, layer) for parent, name, layer in untouched(model) if type(layer) is nn.Linear]
    known = {id(layer) for *_, layer in free}
    linear = (layer for layer in model.modules() if isinstance(layer, nn.Linear))
    stay = {id(layer.weight) for layer in linear if id(layer) not in known}
    alike: dict[tuple[int, int], list[tuple[nn.Module, str]]] = {}
    for parent, name, layer in free:
        if id(layer.weight) not in stay:
            alike.setdefault((id(layer.weight), id(layer.bias)), []).append((parent, name))
    return [*alike.values()]


def _settle(places: list[tuple[nn.Module, str]], autocast: torch.dtype | None, device: torch.device) -> None:
    parent, name = places[0]
    layer = cast(nn.Linear, getattr(parent, name))
    made = _settled(layer, autocast or layer.weight.dtype, device)
    for parent, name in places:
        setattr(parent, name, made)


def _settled(layer: nn.Linear, dtype: torch.dtype, device: torch.device) -> nn.Module:
    if layer.weight.dtype != dtype:
        layer.weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)
        layer.bias = None if layer.bias is None else nn.Parameter(layer.bias.to(dtype), requires_grad=False)
    return PackedLinear(layer) if device.type == "cpu" and _packs(dtype) else layer


@cache
def _packs(dtype: torch.dtype) -> bool:
    """Whether this build and this processor multiply by packed weights, and as exactly as by plain ones."""
    with torch.random.fork_rng(devices=[]):
        layer = nn.Linear(96, 64, dtype=dtype).requires_grad_(False)
    rows = torch.linspace(-1, 1, 32 * 96).reshape(32, 96).to(dtype)
    try:
        packed = PackedLinear(layer)(rows)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(packed.float(), layer(rows).float(), rtol=0.0, atol=1e-2 if dtype.itemsize == 2 else 1e-5)
