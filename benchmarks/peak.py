"""How fast this processor multiplies matrices, and how many products the work needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch

from benchmarks.clock import Kind, Lap, Samples, Stopwatch
from benchmarks.workload import LAYERS, Sizes

SHAPES = ((4096, 768, 3072), (4096, 3072, 768), (4096, 768, 768), (4096, 312, 1200))
"""Rows × inputs × outputs: those of the two models, with many rows."""
STOCK = "stock"
SECONDS = 0.25
"""Roughly, for each shape."""


def flops_per_token(sizes: Sizes) -> float:
    """Return the floating-point operations one token of the recipe needs at least.

    2 for each weight of the teacher (one forward pass); 6 for each of the student and the projectors (a forward pass
    and two products of the same size backward). Only weights of the blocks count: attention adds less than 1 % at 25
    tokens, pooler and head see one position of a row, embeddings are look-ups.
    """
    teacher, student = (_weights(models) for models in (sizes.teacher, sizes.student))
    projectors = len(LAYERS) * sizes.student["hidden_size"] * sizes.teacher["hidden_size"]
    return 2.0 * teacher + 6.0 * (student + projectors)


@contextmanager
def stock_products() -> Iterator[None]:
    """Multiply fp32 matrices as torch does by default: the fast route is set by our runs, not by the peer."""
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


def shapes(precision: str) -> dict[str, Callable[[int], Lap]]:
    """Return what times the products of each shape, in `fp32`, `bf16`, or fp32 by torch's own route (`stock`).

    The work of a lap are operations.
    """
    return {f"gemm {precision} {'×'.join(map(str, shape))}": partial(_timed, shape, precision) for shape in SHAPES}


def peak(samples: Samples, precision: str, kind: Kind) -> float:
    """Return operations per second of the fastest shape."""
    return max(samples.speed(name, kind) for name in shapes(precision))


def _timed(shape: tuple[int, int, int], precision: str, number: int) -> Lap:
    rows, inputs, outputs = shape
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(rows, inputs, dtype=dtype), torch.randn(inputs, outputs, dtype=dtype)
    out = torch.empty(rows, outputs, dtype=dtype)
    with stock_products() if precision == STOCK else nullcontext():
        torch.mm(left, right, out=out)
        watch, done = Stopwatch(), 0
        while watch.seconds()[1] < SECONDS:
            torch.mm(left, right, out=out)
            done += 1
        wall, cpu = watch.seconds()
    return Lap(wall, cpu, done * 2.0 * rows * inputs * outputs)


def _weights(sizes: dict[str, int]) -> int:
    """Weights of all blocks: query, key, value, output and the two of the feed-forward part."""
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    return sizes["layers"] * (4 * width**2 + 2 * width * inner)
