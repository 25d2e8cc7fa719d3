"""What writing texts will take: measured on a few of the rows, before it is begun."""

import shutil
import time
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from configs.errors import UserError
from configs.stages import GenerateStage
from pipelines.generate import Generate, Work, bill
from pipelines.run import Run
from teachers.text.store import missing, size_on_disk

_WARM = 4
"""Rows written before the clock starts."""


@dataclass(frozen=True)
class Estimate:
    """What a generate stage will take, by what its sample took."""

    sample: int
    rows: int
    shards: int
    to_write: int
    """Shards that are not there yet"""
    sentences_per_second: float
    """Of one process like this"""
    minutes: float
    """Until all are there, by one process like this"""
    megabytes: float
    """Of all shards"""
    bill: dict[str, float]
    """Of an API, for what is not there yet; empty without one"""


def show(run: Run, sample: int) -> None:
    """Print what each generate stage of a run will take. Raise UserError where it has none."""
    stages = [
        Generate(run, name, config) for name, config in run.config.stages.items() if isinstance(config, GenerateStage)
    ]
    if not stages:
        raise UserError("stages: none of kind `generate`; nothing is written in this run")
    for stage in stages:
        found = estimate(stage, run, sample)
        table = Table(title=f"{stage.name}, by {found.sample} rows", title_justify="left", box=None, show_header=False)
        for name, value in _rows(found, run).items():
            table.add_row(f"  {name}", value)
        run.console.print(table, highlight=False)


def estimate(stage: Generate, run: Run, sample: int) -> Estimate:
    """Write the texts of the first rows of the plan, which are drawn by a hash, and scale by characters of source.

    In a sample, texts of less alike lengths share a batch than in a whole shard: rather too long than too short.
    Raises UserError where there are no rows.
    """
    work = stage.prepared(stage.folder(run.folder))
    plan = work.plan
    if not plan.shards:
        raise UserError(f"stages.{stage.name}.data: no rows are left to write texts for")
    order = np.concatenate(plan.shards)
    work.write(order[:_WARM])
    before, began = bill(work.built.teacher, stage.endpoint), time.monotonic()
    places = order[:sample]
    texts = work.write(places)
    seconds = time.monotonic() - began
    spent = {name: value - before[name] for name, value in bill(work.built.teacher, stage.endpoint).items()}
    lacking = missing(plan, work.shards)
    scale = _characters(work, np.concatenate([plan.shards[n] for n in lacking])) if lacking else 0
    measured = _characters(work, places)
    empty, filled = size_on_disk(plan.ids[:0], []), size_on_disk(plan.ids[places], texts)
    bytes_in_all = empty * len(plan.shards) + (filled - empty) * _characters(work, order) / measured
    return Estimate(
        sample=len(places),
        rows=len(order),
        shards=len(plan.shards),
        to_write=len(lacking),
        sentences_per_second=len(places) / seconds,
        minutes=seconds * scale / measured / 60,
        megabytes=bytes_in_all / 1e6,
        bill={name: value * scale / measured for name, value in spent.items()},
    )


def _characters(work: Work, places: np.ndarray) -> int:
    return sum(len(work.texts[place]) for place in places)


def _rows(found: Estimate, run: Run) -> dict[str, str]:
    here = next(folder for folder in (run.folder, *run.folder.resolve().parents) if folder.is_dir())
    left = "" if found.to_write == found.shards else f", {found.to_write:,} of them still to be written"
    told = {
        "rows": f"{found.rows:,}",
        "shards": f"{found.shards:,}{left}",
        "speed": f"{found.sentences_per_second:,.1f} sentences/s of one process on this machine",
        "time": f"{found.minutes:,.1f} min of one process; processes on cores of their own share it",
        "disk": f"{found.megabytes:,.2f} MB, {shutil.disk_usage(here).free / 1e6:,.0f} MB are free",
    }
    if found.bill:
        told["requests"] = f"{found.bill['requests']:,.0f}, {found.bill['tokens_out']:,.0f} tokens to be received"
        told["price"] = f"{found.bill['price']:,.2f}, by the prices the run names"
    return told
