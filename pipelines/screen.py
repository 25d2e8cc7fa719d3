"""What a run says on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.console import Console
from rich.table import Table

from distill.adapted_model import roles
from distill.callbacks.watch import Share
from distill.data.module import DistillData
from distill.objective import Objective
from distill.protocols import Teacher
from pipelines.stage import Stage
from pipelines.verdict import GREEDY, TITLES, over_seeds
from students.student import Student


class Screen:
    """Prints the course of a run, a stage at a time."""

    def __init__(self, console: Console) -> None:
        """Print to a console."""
        self.console = console

    def started(self, stage: Stage[Any]) -> None:
        """Announce a stage."""
        self.console.print(f"\n[bold cyan]▸ {stage.title}[/] [dim]{stage.kind}[/]", highlight=False)

    def finished(self, stage: Stage[Any], done: dict[str, Any]) -> None:
        """Say how long a stage took and what came out."""
        self.console.print(f"  [green]✓[/] {_summary(done)} [dim]{_time(done['seconds'])}[/]", highlight=False)

    def ended(self, folder: Path) -> None:
        """Say where the results are."""
        exported = sorted(path.parent for path in folder.glob("export/transformers/config.json"))
        places = {"student": exported, "report": [folder / "report.html"]}
        self.console.print()
        for what, paths in places.items():
            for path in paths:
                self.console.print(f"  {what:8} [bold]{path}[/]", highlight=False, soft_wrap=True)

    def skipped(self, stage: Stage[Any], done: dict[str, Any]) -> None:
        """Say that a stage was done before."""
        self.console.print(f"[dim]▸ {stage.title}: done before · {_summary(done)}[/]", highlight=False)

    def parts(
        self, student: Student, teacher: Teacher, objective: Objective, data: DistillData, frozen: Sequence[str]
    ) -> None:
        """Show who learns what from whom, on how many rows."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
        table.add_row("learner", f"{student.shape.describe()}, {trained / 1e6:.2f} M parameters train")
        if isinstance(student.model, PeftModel):
            table.add_row("adapter", ", ".join(f"{role} {count:,}" for role, count in roles(student.model).items()))
        table.add_row("from", teacher.describe())
        steps = f"{data.plan.steps:,} steps of {data.plan.batching.tokens or data.plan.batching.batch_size}"
        unit = "tokens" if data.plan.batching.tokens else "rows"
        table.add_row("rows", f"{len(data.train):,}, {steps} {unit}")
        for row in objective.describe():
            table.add_row(row.name, f"weight {row.weight}, a {row.unit} mean{'  ' + row.layers if row.layers else ''}")
        if student.kept:
            table.add_row("frozen", f"{len(student.kept)} tensors, as asked for: {_families(sorted(student.kept))}")
        if frozen:
            table.add_row("as it is", f"{len(frozen)} tensors no term depends on: {_families(frozen)}")
        self.console.print(table, highlight=False)

    def warning(self, text: str) -> None:
        """Say what works but should be looked at."""
        self.console.print(f"[yellow]warning:[/] {text}", highlight=False, soft_wrap=True)

    def shares(self, shares: Sequence[Share]) -> None:
        """Show each term's share of the first gradient."""
        if len(shares) > 1:
            told = "  ".join(f"{share.term} {share.share:.0%}" for share in shares)
            self.console.print(f"  share of the first gradient: {told}", highlight=False)

    def comparison(self, results: dict[str, Any]) -> None:
        """Print the table a run is made for."""
        metric = results["metric"]
        timed = results["latency"] is not None
        table = Table(
            title=f"{results['data']}: {results['rows']:,} rows{_left_out(results)}",
            title_justify="left",
            box=None,
            padding=(0, 2),
        )
        greedy = f"{metric}{GREEDY}"
        written = any(greedy in scores for model in results["models"].values() for scores in model["seeds"].values())
        more = ["greedy"] if written else []
        for column in ("", TITLES[metric], *more, "agrees", "size", "MB", *(("p50 ms", "p95 ms") if timed else ())):
            table.add_column(column, justify="left" if not column else "right")
        for role, model in results["models"].items():
            latency = [_milliseconds(model, key) for key in ("p50_ms", "p95_ms")] if timed else []
            without_search = [over_seeds(model, greedy)] if written else []
            agree = [seed["agreement"] for seed in model["seeds"].values() if "agreement" in seed]
            agreement = f"{100 * sum(agree) / len(agree):.1f} %" if agree else ""
            table.add_row(
                role,
                over_seeds(model, metric),
                *without_search,
                agreement,
                _size(model),
                f"{model['megabytes']:.1f}",
                *latency,
            )
        self.console.print(table)
        self.console.print(f"\n  [bold]{results['verdict']['sentence']}[/]", highlight=False)


def _left_out(results: Mapping[str, Any]) -> str:
    """Say how many rows no model was compared on."""
    count = results.get("left_out", 0)
    return f"; {count:,} left out, longer than a model’s positions" if count else ""


def _milliseconds(model: dict[str, Any], key: str) -> str:
    return f"{model['latency']['1'][key]:.1f}" if "latency" in model else "–"


def _summary(done: dict[str, Any]) -> str:
    results = done["results"]
    if "validation" in results:
        return ", ".join(f"{TITLES.get(name, name)} {value:.3f}" for name, value in results["validation"].items())
    if results.get("sentences_per_second"):
        return f"{results['rows']:,} rows, {results['sentences_per_second']:,} sentences/s"
    if "rows" in results:
        return f"{results['rows']:,} rows"
    return str(results.get("summary", "done"))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _families(names: Sequence[str]) -> str:
    """Return the modules that hold the named tensors, briefly."""
    modules = sorted({name.removeprefix("model.").rsplit(".", 1)[0] for name in names})
    return ", ".join(modules[:3]) + (" …" if len(modules) > 3 else "")


def _size(model: dict[str, Any]) -> str:
    """Return a model's parameters; of one in an adapter, the adapter's own too."""
    own = f", own {model['own'] / 1e6:.2f} M" if model.get("own") else ""
    return f"{model['parameters'] / 1e6:.2f} M{own}"
