"""The commands for folders of adapters. They import torch only where a model is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from pipelines.adapter_facts import AdapterFacts

app = typer.Typer(help="List, show, merge, copy and take over adapters.", no_args_is_help=True)

_MERGES = {False: "yes", True: "if peft can; `distill adapters merge` tries and compares"}
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of an adapter.")]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write; must not be there, or be empty.")]


@app.command("list")
def list_adapters(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look.")]) -> None:
    """List the adapters in a folder, however deep: method, model, size, what they stand on."""
    from pipelines.adapter_facts import found_under
    from pipelines.numbers import megabytes, short_count

    table = _table("adapter", "method", "base model", "MB", "parameters", "stands on")
    for found in found_under(folder):
        name = escape(str(found.folder.relative_to(folder)))
        numbers = (megabytes(found.megabytes), short_count(sum(found.counts.values())))
        table.add_row(f"[bold]{name}[/]", found.kind, escape(found.base), *numbers, ", ".join(found.below) or "–")
    Console().print(table)


@app.command()
def show(folder: Folder) -> None:
    """Show an adapter: its configuration, its parameters, whether its model's weights can take it in."""
    from pipelines.adapter_facts import facts

    Console().print(_shown(facts(folder)))


@app.command()
def merge(folder: Folder, output: Output) -> None:
    """Take an adapter into its model's weights, in fp32, where its algebra allows it."""
    from pipelines.adapter_moves import merge as run

    _tell(output, run(folder, output))


@app.command()
def export(
    folder: Folder,
    output: Output,
    drop: Annotated[
        int, typer.Option("--drop", min=0, help="Leave the lowest layers without parts (AdapterDrop).")
    ] = 0,
    original: Annotated[
        float | None,
        typer.Option("--original", min=0, max=1, help="Mix the model without its experts in: 1 is that model alone."),
    ] = None,
) -> None:
    """Write an adapter's folder that stands alone: with those it stands on, tokenizer and card."""
    from pipelines.adapter_moves import export as run

    _tell(output, run(folder, output, drop=drop, original=original))


@app.command("import")
def take(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Adapter or fusion of AdapterHub's.")],
    output: Output,
    base: Annotated[str, typer.Option("--base", metavar="MODEL", help="Folder or hub name of the model it is for.")],
    on: Annotated[
        list[Path] | None, typer.Option("--on", metavar="FOLDER", help="Adapter it was stacked on, lowest first.")
    ] = None,
    without_head: Annotated[bool, typer.Option("--without-head", help="Leave out the head beside it.")] = False,
) -> None:
    """Take an adapter of AdapterHub's over into a folder that peft and this pipeline load."""
    from pipelines.adapter_moves import take as run

    _tell(output, run(folder, output, base, on=on or (), head=not without_head))


def _shown(found: "AdapterFacts") -> Table:
    from pipelines.numbers import megabytes, short_count

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    rows = {"base model": found.base, **found.settings(), "MB": megabytes(found.megabytes)}
    rows |= {f"parameters: {role}": short_count(count) for role, count in found.counts.items() if count}
    rows["mergeable"] = f"no: {found.unmergeable}" if found.unmergeable else _MERGES[found.kind.startswith("peft ")]
    for key, value in rows.items():
        table.add_row(f"[bold]{key}[/]", escape(value))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _tell(output: Path, difference: float) -> None:
    from pipelines.numbers import short

    what = f"wrote {output}; its outputs are those of the adapter (largest difference {short(difference)})"
    Console().print(escape(what), highlight=False, soft_wrap=True)
