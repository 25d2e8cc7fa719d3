"""Trainings that have to come to the same."""

import csv
from pathlib import Path

import torch

from tests.helpers.training import weights


def losses(folder: Path) -> list[list[float]]:
    """Return what a training logged of its losses, step after step; of one that was cut, since it went on last."""
    return _logged(folder, "loss")


def curve(folder: Path) -> dict[int, list[float]]:
    """Return what all starts of a training logged of its losses, by step; of a step taken twice, the last."""
    found: dict[int, list[float]] = {}
    for log in sorted(folder.glob("log/from-*"), key=lambda path: int(path.name.removeprefix("from-"))):
        with (log / "metrics.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["loss"]:
                    found[int(row["step"])] = [float(row[key]) for key in sorted(row) if key.startswith("loss")]
    return found


def scores(folder: Path) -> list[list[float]]:
    """Return what its validations found, one after another."""
    return _logged(folder, "validation/")


def _logged(folder: Path, name: str) -> list[list[float]]:
    texts = [log.read_text(encoding="utf-8").splitlines() for log in folder.rglob("metrics.csv")]
    logs = [[*csv.DictReader(lines)] for lines in texts]
    last = max(logs, key=lambda rows: int(rows[0]["step"]))
    rows = [{key: row[key] for key in row if key.startswith(name) and row[key]} for row in last]
    return [[float(row[key]) for key in sorted(row)] for row in rows if row]


def is_the_same(folder: Path, as_in: Path, *, terms: int, steps: int = 6) -> None:
    """See that every loss agrees to 1e-6 (their sum, which is above 1, to 1e-6 of it), every weight to 1e-5, and what
    they score on all validation rows as far as weights do.
    """
    ours, whole = losses(folder), losses(as_in)
    assert len(whole) == steps and len(whole[0]) == terms + 1
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(whole), atol=1e-6, rtol=1e-6)
    found, expected = scores(folder), scores(as_in)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    weighs_the_same(folder, as_in)


def weighs_the_same(folder: Path, as_in: Path, *, within: float = 1e-5) -> None:
    """See that every weight agrees to `within`."""
    found, expected = weights(folder), weights(as_in)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=within, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
