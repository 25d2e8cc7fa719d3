"""What the folder of a run holds, read for the report and the model card. Parts not written yet are left out."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from distill.errors import DataError
from pipelines.verdict import Role

Curve = list[tuple[float, float]]
"""(step, value), by step."""

_SEED = "seed-"


@dataclass(frozen=True)
class Trace:
    """One pass of a stage: under one seed, or the one all seeds share."""

    seed: str | None
    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """What the stage wrote when it was done; empty before."""
        return read_json(self.folder / "stage.json")

    @cached_property
    def curves(self) -> dict[str, Curve]:
        """Columns of the training log; after a resumption the later log counts from where it begins."""
        merged: dict[str, dict[float, float]] = {}
        for log in sorted(self.folder.glob("log/**/metrics.csv"), key=_first_step):
            for name, points in _read_log(log).items():
                old = {step: value for step, value in merged.get(name, {}).items() if step < min(points)}
                merged[name] = old | points
        return {name: sorted(points.items()) for name, points in merged.items()}


@dataclass(frozen=True)
class StageFiles:
    """All passes of one stage."""

    name: str
    kind: str
    role: Role
    """Whose colour its curves have: a stage without a teacher trains the baseline."""
    traces: tuple[Trace, ...]

    @property
    def seconds(self) -> float:
        """Time of all passes that are done."""
        return float(sum(trace.record.get("seconds", 0.0) for trace in self.traces))

    @property
    def results(self) -> dict[str, Any]:
        """`results.json` of the stage, else what it said when it was done."""
        folder = self.traces[0].folder
        found: dict[str, Any] = read_json(folder / "results.json") or self.traces[0].record.get("results", {})
        return found


@dataclass(frozen=True)
class RunFiles:
    """A run's folder."""

    folder: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`: what was run, where and when."""
        return read_json(self.folder / "run.json")

    @property
    def title(self) -> str:
        """The name of what was run, else of the folder."""
        return str(self.record.get("name") or self.folder.resolve().name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty where there is none."""
        parsed = yaml.safe_load(self.record.get("config", ""))
        return parsed if isinstance(parsed, dict) else {}

    @cached_property
    def stages(self) -> tuple[StageFiles, ...]:
        """The stages that were begun, in the order of the configuration."""
        found: dict[str, list[Trace]] = {}
        for folder in sorted({*self.folder.glob("*"), *self.folder.glob(f"{_SEED}*/*")}, key=_seed_order):
            if (folder / "stage.json").is_file() or (folder / "log").is_dir() or (folder / "results.json").is_file():
                seed = folder.parent.name.removeprefix(_SEED) if folder.parent != self.folder else None
                found.setdefault(folder.name, []).append(Trace(seed, folder))
        order = list(self.config.get("stages", {}))
        names = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
        return tuple(self._stage(name, tuple(found[name])) for name in names)

    @property
    def evaluation(self) -> dict[str, Any]:
        """Results of the last evaluate stage; empty where there is none."""
        return self._last("evaluate")

    @property
    def evaluations(self) -> list[tuple[str, dict[str, Any]]]:
        """Names and results of all evaluate stages that are done."""
        return self._done("evaluate")

    @property
    def exported(self) -> dict[str, Any]:
        """Results of the last export stage; empty where there is none."""
        return self._last("export")

    def _last(self, kind: str) -> dict[str, Any]:
        found = self._done(kind)
        return found[-1][1] if found else {}

    def _done(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        return [(stage.name, stage.results) for stage in self.stages if stage.kind == kind and stage.results]

    def _stage(self, name: str, traces: tuple[Trace, ...]) -> StageFiles:
        section = self.config.get("stages", {}).get(name, {})
        guess = name if name in ("evaluate", "export", "augment", "record") else "train"
        kind = section.get("kind", traces[0].record.get("kind", guess))
        return StageFiles(name, kind, self._role(name, section), traces)

    def _role(self, name: str, section: dict[str, Any]) -> Role:
        """Return what a stage trains: by the stage that compares it, if one does."""
        for other in self.config.get("stages", {}).values():
            if other.get("kind") == "evaluate" and name in (other.get("student"), other.get("baseline")):
                return "student" if name == other.get("student") else "baseline"
            if name in other.get("others", ()):
                return name
        if section.get("trains") == "teacher":
            return "teacher"
        return "baseline" if section.get("teacher") == "none" else "student"


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; an absent file is an empty one. Raise `DataError` where it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no object")
    return value


def _seed_order(folder: Path) -> tuple[int, str]:
    number = folder.parent.name.removeprefix(_SEED)
    return (int(number) if number.isdigit() else -1, folder.name)


def _read_log(path: Path) -> dict[str, dict[float, float]]:
    """Read {column: {step: value}}; a row cut short, as in a log still being written, is left out."""
    found: dict[str, dict[float, float]] = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            step = _number(row.get("step"))
            for name, text in row.items():
                value = _number(text)
                if step is not None and value is not None and name != "step":
                    found.setdefault(name, {})[step] = value
    return found


def _first_step(path: Path) -> float:
    return min((min(points) for points in _read_log(path).values()), default=0.0)


def _number(text: str | None) -> float | None:
    """Read a finite number; None for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
