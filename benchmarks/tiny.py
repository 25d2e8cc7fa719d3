"""The TinyBERT step: ours through the whole path of a run, against TextBrewer, a bare loop and the hardware."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import brewer, equality, levers, memory, peak, report
from benchmarks.clock import Lap, Samples
from benchmarks.goals import Result, goals
from benchmarks.ours import WARM, Bare, Trained
from benchmarks.workload import BATCH, LONGEST, MEAN_LENGTH, SMALL, Sizes, Workload, write
from configs.training import Machine
from distill.data.module import PlannedBatches
from distill.data.windows import Plan
from pipelines.machine import Device, prepare

LIMIT = {"fp32": 1e-5, "bf16": 2e-2}
"""Largest relative difference of a loss or of the gradient."""
REGIMES = {"fixed": "P1", "dynamic": "P2", "identical": "P3"}
STEPS = {"fixed": 2, "dynamic": 4, "identical": 10}
"""Timed steps of a lap. A step of fixed padding costs the same whichever rows it holds, so a few of them do."""
SAVE_EVERY = 500
"""Steps between two checkpoints of a run by default; a share of one is added to the trainer's overhead."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    peer: str = "textbrewer"
    """`none` leaves the comparison out."""
    threads: int = 2
    rounds: int = 5
    precisions: tuple[str, ...] = ("fp32", "bf16")
    small: bool = False
    levers: bool = False

    @property
    def why_alone(self) -> str:
        """Why there is no peer to compare with; empty where there is."""
        if self.peer == "none":
            return "no peer was asked for"
        return "" if brewer.installed() else "textbrewer is not installed: pip install 'distill-pipeline[bench]'"


def run(options: Options, console: Console, path: Path) -> int:
    """Measure, print, write the JSON file, and return the exit code."""
    device = prepare(Machine(accelerator="cpu", threads=options.threads, devices=1))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        sizes = SMALL if options.small else Sizes()
        work = write(Path(folder) / "speed", sizes)
        found: dict[str, Any] = {"sizes": asdict(sizes), "equality": _gate(work, device, options, console)}
        if not all(verdict["holds"] for verdict in found["equality"]):
            results = _skipped(options, "the two sides do not compute the same")
        else:
            results = _speeds(work, device, options, found)
            full = write(Path(folder) / "memory", replace(sizes, length=LONGEST, windows=1))
            results += _memory(full, options, found)
        if options.levers and "clock" in found:
            samples = levers.measure(work, device, options.rounds, options.precisions)
            levers.show(console, samples, options.precisions)
            found["levers"] = samples.raw()
    report.show(console, _title(found), results)
    report.write(path, found, results, device)
    return report.exit_code(results)


def _gate(work: Workload, device: Device, options: Options, console: Console) -> list[dict[str, Any]]:
    verdicts = []
    for precision in () if options.why_alone else options.precisions:
        verdict = equality.check(work, device, precision, LIMIT[precision])
        console.print(f"  {verdict.said()}", highlight=False)
        verdicts.append(asdict(verdict) | {"holds": verdict.holds})
    return verdicts


def _speeds(work: Workload, device: Device, options: Options, found: dict[str, Any]) -> list[Result]:
    """Let all variants take turns, and hold what comes out against the goals."""
    turns: dict[str, Callable[[int], Lap]] = dict(peak.shapes(peak.STOCK))
    saving: dict[str, float] = {}
    for precision in options.precisions:
        training = {"precision": precision, "log_every": STEPS["identical"]}
        trained = Trained(work.stage(device, f"speed-{precision}", training=training), work.folder / "speed")
        bare = Bare(trained, bf16=precision == "bf16")
        turns[f"ours {precision}"] = partial(_own_lap, trained)
        turns[f"bare {precision}"] = partial(_own_lap, bare)
        turns |= peak.shapes(precision)
        saving[precision] = trained.save_seconds()
    if not options.why_alone:
        turns |= _peers(brewer.Brewer(work.folder / "teacher", trained, work.folder / "peer"), trained)
    samples = Samples.gather(turns, options.rounds, options.threads)
    found |= {"clock": samples.clock, "contended": samples.contended, "cores_used": samples.cores}
    found |= {"samples": samples.raw(), "checkpoint_seconds": saving, "examples_per_second": _pace(samples)}
    return [result for p in options.precisions for result in _judged(samples, p, work.sizes, saving[p], options)]


def _judged(samples: Samples, precision: str, sizes: Sizes, saving: float, options: Options) -> list[Result]:
    """Return what became of the goals of a precision."""
    known, ours, clock = goals(), f"ours {precision}", samples.clock
    top = peak.peak(samples, precision, clock)
    flops = peak.flops_per_token(sizes)
    results = []
    for regime, name in REGIMES.items():
        goal = known[f"{name}-{precision}"]
        if options.why_alone:
            results.append(Result(goal, None, options.why_alone))
            continue
        theirs = f"textbrewer {regime}"
        at_peak = top / flops / samples.speed(theirs, clock)
        results.append(Result(goal, samples.ratio(ours, theirs, clock), at_peak=at_peak))
    step = BATCH * MEAN_LENGTH / samples.speed(ours, clock)
    overhead = samples.ratio(f"bare {precision}", ours, clock) - 1 + saving / SAVE_EVERY / step
    results.append(Result(known[f"P4-{precision}"], 100 * overhead))
    results.append(Result(known[f"P5-{precision}"], 100 * samples.speed(ours, clock) * flops / top))
    return results


def _peers(peer: brewer.Brewer, trained: Trained) -> dict[str, Callable[[int], Lap]]:
    """Return TextBrewer's laps over the same rows: as its examples pad, padded to the longest, and in our batches."""
    plan = trained.data.plan
    shuffled = replace(plan, batching=replace(plan.batching, bucket_window=1))
    plans = {"fixed": replace(shuffled, pad_to=LONGEST), "dynamic": shuffled, "identical": plan}
    return {f"textbrewer {regime}": partial(_peer_lap, peer, trained, plans[regime], regime) for regime in REGIMES}


def _own_lap(variant: Trained | Bare, number: int) -> Lap:
    """Train the windows of this round: after five rounds, the whole epoch of the pool."""
    return variant.lap(number * STEPS["identical"], STEPS["identical"])


def _peer_lap(peer: brewer.Brewer, trained: Trained, plan: Plan, regime: str, number: int) -> Lap:
    data = trained.data
    planned = PlannedBatches(data.train, plan, data.pad_id, rank=0)
    first = number * STEPS[regime]
    return peer.lap([planned[step] for step in range(first, first + WARM + STEPS[regime])])


def _pace(samples: Samples) -> dict[str, dict[str, float]]:
    """Return examples of the mean length per second, on both clocks."""
    names = [name for name in samples.laps if not name.startswith("gemm")]
    return {name: {kind: samples.speed(name, kind) / MEAN_LENGTH for kind in ("wall", "cpu")} for name in names}


def _memory(work: Workload, options: Options, found: dict[str, Any]) -> list[Result]:
    known = goals()
    if options.why_alone:
        return [Result(known[f"M4-{precision}"], None, options.why_alone) for precision in options.precisions]
    peaks = {name: memory.measure(work, name, options.threads) for name in ("textbrewer", *options.precisions)}
    found["megabytes"] = peaks
    return [Result(known[f"M4-{name}"], peaks[name] / peaks["textbrewer"]) for name in options.precisions]


def _skipped(options: Options, why: str) -> list[Result]:
    known = goals()
    names = (*REGIMES.values(), "P4", "P5", "M4")
    return [Result(known[f"{name}-{precision}"], None, why) for precision in options.precisions for name in names]


def _title(found: dict[str, Any]) -> str:
    if "clock" not in found:
        return "TinyBERT step: no speed, the gate is shut"
    busy = " (other work held the cores)" if found["contended"] else ""
    return f"TinyBERT step, on the {found['clock']} clock: {found['cores_used']:.2f} cores in use{busy}"
