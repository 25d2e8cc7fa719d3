"""Frozen models whose layers hold their weights in fewer bits, by bitsandbytes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizers_utils import should_convert_module

from configs.teachers import Bits
from distill.errors import ModelError
from distill.few_shapes import FewShapes

_BLOCK = 64
"""Weights in 4 bits that share a scale."""


@dataclass(frozen=True)
class Quantised:
    """How the weights of a model's layers are held, and where: they cannot be moved."""

    bits: Bits
    """`int8`: LLM.int8() (Dettmers et al. 2022); `nf4`, `fp4`: QLoRA's (Dettmers et al. 2023)."""
    device: str


@dataclass(frozen=True)
class Footprint:
    """Bytes of a quantised model."""

    held: int
    passing: int
    """Of its largest weight in the type of products: 4 bits are put back into it, one weight at a time."""


def options(wanted: Quantised, outline: PreTrainedModel, where: str) -> dict[str, Any]:
    """Return what `from_pretrained` takes to load a model like `outline`, which has no weights: what lies outside of
    its layers (embeddings, heads, poolers) stays in the outline's type, and so do products in 4 bits. Raise ModelError
    where bitsandbytes is not installed, or nothing could be quantised.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{where}: {wanted.bits} needs the package bitsandbytes, which is not installed: "
            "pip install 'distill-pipeline[quantised]'"
        )
    if not any(_products(outline)):
        raise ModelError(f"{where}: {type(outline).__name__} has no linear layers that {wanted.bits} could hold")
    # transformers' own choice of what to leave out takes a classifier with a bias for one of the layers
    left_out = _outside(outline)
    if wanted.bits == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left_out)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            llm_int8_skip_modules=left_out,
            bnb_4bit_quant_type=wanted.bits,
            bnb_4bit_compute_dtype=outline.dtype,
        )
    return {"quantization_config": config, "device_map": {"": wanted.device}}


def compute_exactly(model: nn.Module) -> None:
    """Have products in 4 bits on a CPU computed in the type that was asked for, from the weights as they are held.

    With bf16 in the processor bitsandbytes would compute all in bf16, and fail where a layer's outputs are no multiple
    of 32; with AVX-512 it puts weights back wrongly where a block of `_BLOCK` goes over the end of a row (0.50).
    """
    from bitsandbytes.nn.modules import Linear4bit

    for part in model.modules():
        if isinstance(part, Linear4bit) and part.weight.device.type == "cpu":
            part.support_avx512bf16_for_cpu = False
            if part.in_features % _BLOCK:
                part.forward = partial(_product, part)  # type: ignore[method-assign]


def _product(layer: Any, rows: Tensor) -> Tensor:
    """Return rows [… K] times weights [N K] in 4 bits, put back by their definition: two to a byte, the higher first,
    quantiles times the scale of their block.
    """
    state, dtype = layer.weight.quant_state, layer.compute_dtype or rows.dtype
    held = layer.weight.data.view(torch.uint8).flatten()
    places = torch.stack((held >> 4, held & 15), 1).flatten()[: state.shape.numel()]
    weight = state.code[places.int()] * state.absmax.repeat_interleave(state.blocksize)[: len(places)]
    bias = None if layer.bias is None else layer.bias.to(dtype)
    return nn.functional.linear(rows.to(dtype), weight.view(state.shape).to(dtype), bias).to(rows.dtype)


def footprint(outline: PreTrainedModel, bits: Bits) -> Footprint:
    """Return what a model takes once it is quantised.

    Of n weights in r rows: `int8` n + 4 r bytes, one fp32 scale a row; `nf4` and `fp4` n/2 + 4 ⌈n/64⌉, one a block of
    64 (QLoRA §3, without double quantisation).
    """
    every = sum(tensor.numel() * tensor.itemsize for tensor in (*outline.parameters(), *outline.buffers()))
    layers = [*_products(outline)]
    whole = [layer.weight.numel() * layer.weight.itemsize for layer in layers]
    held = every - sum(whole) + sum(_bytes(layer, bits) for layer in layers)
    return Footprint(held, 0 if bits == "int8" else max(whole, default=0))


def _bytes(layer: nn.Linear | Conv1D, bits: Bits) -> int:
    count = layer.weight.numel()
    rows = layer.weight.shape[1 if isinstance(layer, Conv1D) else 0]
    return count + 4 * rows if bits == "int8" else count // 2 + 4 * -(-count // _BLOCK)


def _products(model: PreTrainedModel) -> Iterator[nn.Linear | Conv1D]:
    """Yield what is quantised: linear layers inside of a model's layers, but for those it wants in fp32."""
    left_out = [*_outside(model), *(model._keep_in_fp32_modules or ())]
    for name, part in model.named_modules():
        if (type(part) in (nn.Linear, FewShapes) or isinstance(part, Conv1D)) and should_convert_module(name, left_out):
            yield part


def _outside(model: PreTrainedModel) -> list[str]:
    """Return the names of linear layers that lie outside of a model's layers."""
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    inside = {part for layers in lists for layer in layers for part in layer.modules()}
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear | Conv1D) and part not in inside]
