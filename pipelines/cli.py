"""The command line. It imports torch only when a command needs it."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.errors import UserError
from distill import exit_codes
from distill.errors import RankError, Stopped
from distill.signals import stoppable
from pipelines import adapters_cli, plan_cli
from pipelines.arguments import AllowCode, Overrides, Source
from pipelines.imports import kept
from pipelines.place import is_helper
from pipelines.turns import let_others_follow, let_rank_0_speak

if TYPE_CHECKING:
    from configs.load import Loaded
    from pipelines.machine import Device
    from pipelines.run import Run

app = typer.Typer(
    name="distill",
    help="Distil a large model into a small one, and see whether it was worth it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(adapters_cli.app, name="adapters")
app.command()(plan_cli.plan)


@app.command()
def run(source: Source, overrides: Overrides = None, allow_code: AllowCode = False) -> None:
    """Run all stages; the same command again goes on where it stopped."""
    _walk(source, overrides, allow_code, frozenset())


@app.command()
def train(source: Source, overrides: Overrides = None, allow_code: AllowCode = False) -> None:
    """Run the train, augment and record stages only."""
    _walk(source, overrides, allow_code, frozenset({"train", "augment", "record"}))


@app.command()
def generate(
    source: Source,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will take, and write nothing.")] = False,
    sample: Annotated[int, typer.Option(min=1, help="Rows a dry run has written to measure it.")] = 64,
) -> None:
    """Run the generate stages only, beside any number of processes that do the same in the same folder."""
    if dry_run:
        _estimate(source, overrides, sample)
        return
    _walk(source, overrides, False, frozenset({"generate", "recorded"}), joins=True)


@app.command()
def record(source: Source, overrides: Overrides = None) -> None:
    """Run the record stages only, beside any number of processes that do the same in the same folder."""
    _walk(source, overrides, False, frozenset({"record"}), joins=True)


@app.command()
def evaluate(source: Source, overrides: Overrides = None) -> None:
    """Run the evaluate stages only, on models trained before."""
    _walk(source, overrides, False, frozenset({"evaluate"}))


@app.command()
def export(source: Source, overrides: Overrides = None) -> None:
    """Run the export stages only, on models trained before."""
    _walk(source, overrides, False, frozenset({"export"}))


@app.command()
def check(source: Source, overrides: Overrides = None, allow_code: AllowCode = False) -> None:
    """Check a run before it costs anything: configuration, rows, labels, models, layers, memory. Writes nothing."""
    from tempfile import TemporaryDirectory

    from configs.load import load
    from pipelines.machine import prepare

    loaded = load(source, overrides or [])
    with TemporaryDirectory() as scratch:
        run = _run_on(prepare(loaded.pipeline.machine), loaded, allow_code, Path(scratch))
        from pipelines.check import preflight

        preflight(run)
    Console().print("[green]✓[/] all checks passed")


@app.command()
def show(source: Source, overrides: Overrides = None) -> None:
    """Print the resolved configuration and where each value comes from."""
    from configs.load import load
    from configs.show import show as render

    typer.echo(render(load(source, overrides or [])))


@app.command("list")
def list_presets() -> None:
    """List the presets and what they should score."""
    from configs import presets

    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("preset", "what it does", "what it should score"):
        table.add_column(title, overflow="fold")
    for name in presets.names():
        table.add_row(f"[bold]{name}[/]", *presets.describe(name))
    Console().print(table)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(metavar="PRESET")], target: Annotated[Path, typer.Argument(metavar="FILE")]
) -> None:
    """Copy a preset to a file of your own, to edit it."""
    from configs import presets

    presets.copy(name, target)
    Console().print(f"wrote {target}; run it with `distill run {target}`", highlight=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, for editors."""
    import json

    from configs.schema import schema as build

    typer.echo(json.dumps(build(), indent=2))


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write report.html and report.md of a run again."""
    from pipelines.report import write_report

    if not (folder / "run.json").is_file():
        raise UserError(f"{folder}: no run; a run's folder holds run.json")
    Console().print(f"report: {write_report(folder)}", highlight=False)


@app.command()
def slurm(
    source: Source,
    overrides: Overrides = None,
    allow_code: AllowCode = False,
    nodes: Annotated[int, typer.Option(min=1, help="Hosts.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each host; 0: one process on its CPU.")] = 1,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores for each GPU.")] = None,
    time: Annotated[str | None, typer.Option(help="Longest time, as 08:00:00; it comes back until it is done.")] = None,
    partition: Annotated[str | None, typer.Option()] = None,
    account: Annotated[str | None, typer.Option()] = None,
    notice: Annotated[
        int, typer.Option(min=10, help="Seconds before its end at which it is told to save itself.")
    ] = 120,
    array: Annotated[
        int | None, typer.Option(min=1, help="Have this many jobs write the texts, or record the teacher, together.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="The batch file; by default in the run.")] = None,
    submit: Annotated[bool, typer.Option("--submit/--no-submit", help="Or only write the batch file.")] = True,
) -> None:
    """Have SLURM carry out a run, on any number of hosts; a job that is pre-empted comes back and goes on."""
    from configs.load import load
    from pipelines import slurm as jobs

    loaded = load(source, overrides or [])
    arguments = [source, *(overrides or []), *(["--allow-code"] if allow_code and not array else [])]
    given = (nodes, gpus, cpus, time, partition, account, notice, array)
    verb = jobs.shared(loaded.pipeline.stages) if array else "run"
    job = jobs.Job(loaded.name, arguments, loaded.pipeline.output, *given, verb)
    path = jobs.write(job, output)
    say = partial(Console().print, highlight=False, soft_wrap=True)
    say(f"wrote {path}")
    if submit:
        number = jobs.submit(path)
        say(f"job {number}: `squeue -j {number}` says where it stands, `scancel {number}` ends it; its log: {job.log}")


@app.command()
def doctor() -> None:
    """Say what this machine offers: versions, devices, cores, fast arithmetic, disk."""
    from pipelines.doctor import examine

    examine(Console())


def main() -> None:
    """Run a command; a user's error and a stop that can be resumed are one message, and an exit code of their own."""
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    try:
        app(standalone_mode=True)
    except UserError as error:
        let_rank_0_speak()
        _complain(f"[bold red]error:[/] {escape(str(error))}")
        let_others_follow()
        sys.exit(exit_codes.REFUSED)
    except Stopped as stopped:
        _say_stopped(stopped)
        sys.exit(exit_codes.of_stop(stopped.signal))
    except RankError as error:
        if str(error):  # else another process has said it
            _complain(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.code)
    except Exception as error:
        _end_for_want_of_room(error)
        raise


def _end_for_want_of_room(error: Exception) -> None:
    """End with the words of a disk that takes no more, where that is what went wrong; whoever wrote."""
    from distill.files import want_of_room

    if told := want_of_room(error):
        _complain(f"[bold red]error:[/] {escape(told)}")
        sys.exit(exit_codes.REFUSED)


def _say_stopped(stopped: Stopped) -> None:
    if not is_helper():
        _complain(str(stopped))


def _complain(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)


def _walk(
    source: str, overrides: list[str] | None, allow_code: bool, kinds: frozenset[str], *, joins: bool = False
) -> None:
    with stoppable():
        loaded, run = _started(source, overrides, allow_code)
        from pipelines.runner import join, walk

        (join if joins else walk)(run, loaded, kinds)


def _estimate(source: str, overrides: list[str] | None, sample: int) -> None:
    from tempfile import TemporaryDirectory

    from configs.load import load
    from pipelines.machine import prepare

    loaded = load(source, overrides or [])
    with TemporaryDirectory() as scratch:
        run = _run_on(prepare(loaded.pipeline.machine), loaded, False, Path(scratch))
        from pipelines.check import preflight
        from pipelines.estimate import show

        preflight(run)
        show(run, sample)


def _started(source: str, overrides: list[str] | None, allow_code: bool) -> "tuple[Loaded, Run]":
    """Return a run on one of its devices; on several, this command is run again on each."""
    from configs.load import load

    with kept():
        from pipelines import launch
        from pipelines.machine import prepare

    loaded = load(source, overrides or [])
    machine = loaded.pipeline.machine
    device = prepare(machine)
    if launch.needs_processes(device):  # asked before anything is imported that they alone need
        sys.exit(launch.start(device, loaded.pipeline.output, machine.timeout))
    return loaded, _run_on(device, loaded, allow_code)


def _run_on(device: "Device", loaded: "Loaded", allow_code: bool, cache: Path | None = None) -> "Run":
    with kept():
        from pipelines.run import Run

    return Run(loaded.pipeline, device, Console(quiet=is_helper()), allow_code=allow_code, cache=cache)


if __name__ == "__main__":
    main()
