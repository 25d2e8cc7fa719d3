"""A small run that loads, for tests that change one thing about it."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load

RUN = """\
about: A run.
expect: A score.
task: {max_length: 16}
teacher: {model: teacher}
student: {kind: sizes, layers: 2}
data:
  train: {path: train.csv}
  validation: {kind: held_out, of: train}
stages:
  student:
    kind: train
    data: [train]
    objective:
      - kind: task
      - {kind: logits, weight: 0.5, temperature: 2}
    training: {epochs: 1}
  evaluate: {kind: evaluate, data: validation, student: student}
"""


def write(folder: Path, text: str = RUN, name: str = "run.yaml") -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problems(source: str | Path, *overrides: str) -> list[str]:
    """Return the problems that loading reports."""
    with pytest.raises(ConfigError) as caught:
        load(source, overrides)
    return list(caught.value.problems)
