"""Where a training writes its curves."""

import shutil
from pathlib import Path

from lightning.pytorch.loggers import Logger


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
