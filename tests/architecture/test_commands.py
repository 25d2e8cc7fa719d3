"""The commands that README and pages show are those of the program: verbs, options, presets, keys."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from configs import presets
from configs.load import load
from pipelines.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINES = {page.name: page.read_text(encoding="utf-8") for page in PAGES}


def _found(pattern: str) -> list[str]:
    """Return the commands of all pages, each as `page: command`."""
    found = [(page, command) for page, text in LINES.items() for command in re.findall(pattern, text, re.MULTILINE)]
    return list(dict.fromkeys(f"{page}: {command}" for page, command in found))


BLOCKS = _found(r"^(?:\$ | {4})(distill (?:.*\\\n)*.*)$")
"""To be typed in."""
MENTIONS = _found(r"`(distill [^`]+)`")
"""In the text, often without what they are given."""


def _words(command: str) -> list[str]:
    words = shlex.split(command.split(": ", 1)[1].replace("\\\n", " "), comments=True)
    return [word for word in words[1:] if word != "…"]


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that words name, and what is given to it."""
    command, rest = typer.main.get_command(app), words
    while isinstance(command, typer.core.TyperGroup):
        assert rest and rest[0] in command.commands, f"{' '.join(words)}; there are {', '.join(command.commands)}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def _check(command: str) -> None:
    """Parse what is given as the program does, and load the run that is named, with its overrides."""
    found, rest = _command(_words(command))
    params = found.make_context(found.name, rest).params
    source = params.get("source", params.get("name"))
    if source in presets.names():
        assert load(source, params.get("overrides") or []).pipeline.stages
    elif source is not None:
        assert source.endswith(".yaml") or source.isupper(), f"{source} is no preset, no file, and stands for neither"


def test_pages_show_commands():
    assert {"README.md", "clusters.md", "translation.md"} <= {command.split(":")[0] for command in BLOCKS}
    assert len(BLOCKS) >= 18 and len(MENTIONS) >= 10


@pytest.mark.parametrize("command", BLOCKS)
def test_what_is_to_be_typed_in_is_understood(command):
    _check(command)


@pytest.mark.parametrize("command", MENTIONS)
def test_what_the_text_mentions_is_there(command):
    if _command(_words(command))[1]:
        _check(command)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("distill rnu logits/any", "rnu"),
        ("distill run logits/some", "logits/some"),
        ("distill run logits/any --nodes 2", "--nodes"),
        ("distill run logits/any data.train.columns.txt=body", "did you mean `text`"),
        ("distill run logits/any teacher.modle=PATH", "did you mean `model`"),
        ("distill adapters export FOLDER", "output"),
    ],
)
def test_a_command_that_is_wrong_is_found(wrong, told):
    with pytest.raises(Exception, match=told):
        _check(f"page: {wrong}")
