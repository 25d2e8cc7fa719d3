"""MiniLMv2 relations, forward and backward: ours against the plain formula on whole padded maps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks import report
from benchmarks.clock import Lap, Samples, Stopwatch
from benchmarks.goals import Result, goals
from benchmarks.workload import BATCH, HEADS, lengths
from configs.training import Machine
from distill.losses.relation import relation_kl
from pipelines.machine import prepare
from tests.helpers.reference import relation_kl_naive

RELATION_HEADS = 48
WIDTHS = {"student": 384, "teacher": 768}
LONGEST = (82, 128)
"""Longest rows of the batches timed."""
LIMIT = 1e-5
KINDS = 3
"""Query, key and value relations."""
Formula = Callable[["Batch"], Tensor]


@dataclass(frozen=True)
class Batch:
    """Queries, keys and values of a layer on both sides, [B H T A] each, and the mask [B T]."""

    student: tuple[Tensor, ...]
    teacher: tuple[Tensor, ...]
    mask: Tensor


def run(threads: int, rounds: int, console: Console, path: Path) -> int:
    """Compare, measure, print, write the JSON file, and return the exit code."""
    device = prepare(Machine(accelerator="cpu", threads=threads, devices=1))
    batches = {longest: made(longest) for longest in LONGEST}
    differences = {str(longest): difference(batch) for longest, batch in batches.items()}
    if max(differences.values()) > LIMIT:
        why = "the two formulas do not compute the same"
        results = [Result(goals()[f"R1-{longest}"], None, why) for longest in LONGEST]
        report.write(path, {"equality": differences}, results, device)
    else:
        turns = {
            f"{name} {longest}": partial(_lap, formula, batch)
            for longest, batch in batches.items()
            for name, formula in (("ours", ours), ("plain", plain))
        }
        samples = Samples.gather(turns, rounds, threads)
        results = [Result(goals()[f"R1-{n}"], samples.ratio(f"ours {n}", f"plain {n}", samples.clock)) for n in LONGEST]
        found = {"equality": differences, "clock": samples.clock, "cores_used": samples.cores, "samples": samples.raw()}
        report.write(path, found, results, device)
    report.show(console, f"Relations, {RELATION_HEADS} heads, forward and backward", results)
    return report.exit_code(results)


def made(longest: int) -> Batch:
    """Return a batch of the benchmark's lengths, stretched so that the longest row has `longest` tokens."""
    drawn = torch.from_numpy(lengths(BATCH, seed=0))
    tokens = (drawn * longest / drawn.max()).round().long()
    mask = (torch.arange(longest) < tokens[:, None]).long()
    generator = torch.Generator().manual_seed(0)

    def side(width: int) -> tuple[Tensor, ...]:
        shape = (BATCH, longest, HEADS, width // HEADS)  # transposed, as a model's projections are
        return tuple(torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(KINDS))

    student = tuple(tensor.requires_grad_() for tensor in side(WIDTHS["student"]))
    return Batch(student, side(WIDTHS["teacher"]), mask)


def ours(batch: Batch) -> Tensor:
    """Return the sum of the three relations."""
    pairs = zip(batch.student, batch.teacher, strict=True)
    return torch.stack([relation_kl(s, s, t, t, batch.mask, RELATION_HEADS)[0] for s, t in pairs]).sum()


def plain(batch: Batch) -> Tensor:
    """Return the same by the plain formula."""
    pairs = zip(batch.student, batch.teacher, strict=True)
    return torch.stack([relation_kl_naive((s, s), (t, t), batch.mask, RELATION_HEADS) for s, t in pairs]).sum()


def difference(batch: Batch) -> float:
    """Return the largest relative difference of value and gradients."""
    found = []
    for formula in (ours, plain):
        value = formula(batch)
        found.append([value.detach(), *torch.autograd.grad(value, batch.student)])
    return max(float((own - other).norm() / other.norm()) for own, other in zip(*found, strict=True))


def _lap(formula: Formula, batch: Batch, number: int) -> Lap:
    watch, done = Stopwatch(), 0
    while done == 0 or watch.seconds()[1] < 1.0:
        torch.autograd.grad(formula(batch), batch.student)
        done += 1
    wall, cpu = watch.seconds()
    return Lap(wall, cpu, float(done))
