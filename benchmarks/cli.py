"""The command line of the benchmarks."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

WIDTH = 120
"""Columns of a table where there is no terminal to ask."""
SOURCES = Path("data/multi30k_en_de/test_2016_flickr.en.gz")
"""What is translated, where nothing else is named."""


def run(arguments: Sequence[str]) -> int:
    """Run what was asked for and return the exit code: 0 all goals reached, 1 below one, 3 something was skipped."""
    given = _parser().parse_args(arguments)
    console = Console()
    code: int = given.run(given, console if console.is_terminal else Console(width=WIDTH))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=run.__doc__)
    commands = parser.add_subparsers(required=True)
    tiny = commands.add_parser("tiny", help="the TinyBERT step: against TextBrewer, a bare loop, the hardware")
    tiny.add_argument("--peer", choices=("textbrewer", "none"), default="textbrewer")
    tiny.add_argument("--precision", default="fp32,bf16", help="fp32, bf16 or both, with a comma")
    tiny.add_argument("--rounds", type=int, default=5)
    tiny.add_argument("--small", action="store_true", help="tiny models: tries the benchmark, says nothing about speed")
    tiny.add_argument("--levers", action="store_true", help="also what each lever by itself brings")
    tiny.set_defaults(run=_tiny)
    relations = commands.add_parser("relations", help="MiniLMv2 relations against the plain formula")
    relations.add_argument("--rounds", type=int, default=5)
    relations.set_defaults(run=_relations)
    search = commands.add_parser("search", help="beam search against transformers' generate, CTranslate2 beside them")
    search.add_argument("--model", required=True, help="folder of a trained encoder-decoder, as a run exports it")
    search.add_argument("--sources", type=Path, default=SOURCES, help=f"a sentence a line; {SOURCES} by default")
    search.add_argument("--sentences", type=int, default=200)
    search.add_argument("--rounds", type=int, default=5)
    search.set_defaults(run=_search)
    apart = commands.add_parser("apart", help="a teacher on devices of its own against one on those that train")
    apart.add_argument("--rounds", type=int, default=3)
    apart.add_argument("--json", type=Path, default=None, help="where to write; benchmarks/results/ by default")
    apart.set_defaults(run=_apart)
    saving = commands.add_parser("saving", help="what a checkpoint costs: written in the training's time, or beside it")
    saving.add_argument("--small", action="store_true", help="a tiny model: tries the benchmark")
    saving.set_defaults(run=_saving)
    large = commands.add_parser("large", help="a teacher of 1.5 B weights: live, in fewer bits, dealt out to the host")
    large.add_argument("--rounds", type=int, default=10)
    large.add_argument("--small", action="store_true", help="a tiny model: tries the benchmark")
    large.set_defaults(run=_large)
    tasks = commands.add_parser("tasks", help="put finished runs into the tables of results")
    tasks.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    tasks.set_defaults(run=_tasks)
    prepare = commands.add_parser("prepare", help="write files of a corpus as recipes read them")
    prepare.add_argument("what", choices=("tatoeba", "swahili"))
    prepare.add_argument("source", type=Path, help="deu-eng.zip of Tatoeba; the folder of MasakhaNER's swa")
    prepare.add_argument("output", type=Path, help="the folder to write to")
    prepare.set_defaults(run=_prepare)
    for command in (tiny, relations, search, saving, large, *_own_processes(commands)):
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--json", type=Path, default=None, help="where to write; benchmarks/results/ by default")
    return parser


def _own_processes(commands: Any) -> list[argparse.ArgumentParser]:
    """Add what benchmarks start for themselves, to measure a process from its beginning; return who takes threads."""
    child = commands.add_parser("peak-memory")
    child.set_defaults(run=_peak_memory)
    alone = commands.add_parser("large-alone")
    alone.set_defaults(run=_large_alone)
    for command in (child, alone):
        command.add_argument("variant")
        command.add_argument("folder", type=Path)
    alone.add_argument("options", type=json.loads)
    return [child]


def _tiny(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import tiny
    from benchmarks.report import RESULTS

    precisions = tuple(given.precision.split(","))
    options = tiny.Options(given.peer, given.threads, given.rounds, precisions, given.small, given.levers)
    return tiny.run(options, console, given.json or RESULTS / "tiny.json")


def _relations(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import relations
    from benchmarks.report import RESULTS

    return relations.run(given.threads, given.rounds, console, given.json or RESULTS / "relations.json")


def _search(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import search
    from benchmarks.report import RESULTS

    options = search.Options(given.model, given.sources, given.sentences, threads=given.threads, rounds=given.rounds)
    return search.run(options, console, given.json or RESULTS / "search.json")


def _apart(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import apart
    from benchmarks.report import RESULTS

    return apart.run(given.rounds, console, given.json or RESULTS / "apart.json")


def _saving(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import saving
    from benchmarks.report import RESULTS

    options = saving.Options(given.threads, layers=1 if given.small else saving.LAYERS)
    return saving.run(options, console, given.json or RESULTS / "saving.json")


def _large(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import large
    from benchmarks.report import RESULTS

    options = large.Options(given.rounds, small=given.small, threads=given.threads)
    return large.run(options, console, given.json or RESULTS / "large.json")


def _large_alone(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import large

    print(json.dumps(large.alone(given.variant, given.folder, large.Options(**given.options))))
    return 0


def _tasks(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import tasks
    from benchmarks.report import RESULTS

    tasks.write(given.runs, RESULTS, console)
    return 0


def _prepare(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import prepare

    return prepare.run(given.what, given.source, given.output, console)


def _peak_memory(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import memory
    from benchmarks.workload import read

    console.print(json.dumps(memory.peak(given.variant, read(given.folder), given.threads)))
    return 0
