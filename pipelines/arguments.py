"""What several commands are told."""

from typing import Annotated

import typer

Source = Annotated[
    str, typer.Argument(metavar="PRESET|FILE", help="Name of a preset (see `distill list`) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]…", help="Changes, as teacher.model=PATH or task.max_length=64."),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run `kind: custom` terms, which are code of the file's author.")
]
