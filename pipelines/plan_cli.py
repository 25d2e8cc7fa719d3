"""The command that plans a run on machines that are not here. It imports torch only when it runs."""

from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from distill import exit_codes
from pipelines.arguments import AllowCode, Overrides, Source


def plan(
    source: Source,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    nodes: Annotated[int, typer.Option(min=1, help="Hosts.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of each host.")] = 8,
    memory: Annotated[float, typer.Option(min=0.0, help="GB of each GPU.")] = 80.0,
    host_memory: Annotated[float | None, typer.Option(min=0.0, help="GB of each host, shared by its GPUs.")] = None,
    network: Annotated[float, typer.Option(min=0.001, help="GB/s a GPU sends and receives.")] = 50.0,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="10¹² products and sums a second of a GPU, at its peak.")
    ] = 989.0,
    utilisation: Annotated[float, typer.Option(min=0.01, max=1.0, help="Part of the peak that is reached.")] = 0.4,
) -> None:
    """Plan memory, network and speed on GPUs that need not be here. Loads and reads nothing but configurations.

    Where a stage does not fit, it prints what would and ends with exit code 2, as a run does that does not fit.
    """
    from pathlib import Path

    from configs.load import load
    from pipelines.cluster_plan import Cluster, show

    loaded = load(source, overrides or [])
    host = None if host_memory is None else host_memory * 1e9
    cluster = Cluster(nodes, gpus, memory * 1e9, network * 1e9, tflops * 1e12, utilisation, host)
    with TemporaryDirectory() as scratch:
        if not show(loaded.pipeline, cluster, Console(), Path(scratch), allow_code=allow_code):
            raise typer.Exit(exit_codes.REFUSED)
