"""Where a training writes its curves."""

import shutil
from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import Logger

from distill.errors import ModelError

_APART = ("wandb", "mlflow")
"""Loggers whose packages, of the same names, are not among this project's own."""


def require(names: tuple[str, ...]) -> None:
    """Raise ModelError where the package of a logger is not installed."""
    missing = " ".join(name for name in names if name in _APART and find_spec(name) is None)
    if missing:
        raise ModelError(f"machine.loggers: {missing} not installed: pip install {missing}, or leave it out")


def loggers(names: tuple[str, ...], output: Path, first: int) -> list[Logger]:
    """Return the loggers a run asks for; a training that goes on from a step writes on from there."""
    from lightning.pytorch import loggers as known

    made: list[Logger] = []
    for name in names:
        match name:
            case "csv":
                made.append(known.CSVLogger(output, name="log", version=f"from-{first}", flush_logs_every_n_steps=1))
            case "tensorboard":
                made.append(known.TensorBoardLogger(output, name="log", version="tensorboard"))
            case "wandb":
                made.append(known.WandbLogger(save_dir=output, name=output.name))
            case "mlflow":
                made.append(known.MLFlowLogger(experiment_name=output.parent.name, run_name=output.name))
    return made


def clear_logs(folder: Path, first: int) -> None:
    """Drop what was logged from this step on: by an older training of the stage, or by one that was cut."""
    for old in folder.glob("from-*"):
        if int(old.name.removeprefix("from-")) >= first:
            shutil.rmtree(old)
