"""Whole runs that come with this package, by name."""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from posixpath import dirname, join, normpath

from configs.errors import ConfigError
from configs.origins import Fault, Origin, hint
from configs.schema import schema
from configs.strict_yaml import read
from configs.tree import Node

SCHEMA_FILE = "distill.schema.json"
_ENDING = ".yaml"


def root() -> Traversable:
    """Return the folder that holds the presets."""
    return files("configs").joinpath("presets")


def names(bases: bool = False) -> list[str]:
    """Return the names of all presets, such as `tinybert/sst2`, sorted.

    Files whose name begins with `_` are only there to be extended; `bases` lists them too.
    """
    return sorted(_names(root(), "", bases))


def label(name: str) -> str:
    """Return what messages call the preset's file."""
    return f"configs/presets/{name}{_ENDING}"


def text(name: str) -> str:
    """Return the preset's YAML; raises `ConfigError` where there is no such preset."""
    if name not in names(bases=True):
        raise ConfigError([f"{name}: no preset of this name{hint(name, names())}"])
    return root().joinpath(f"{name}{_ENDING}").read_text(encoding="utf-8")


def describe(name: str) -> tuple[str, str]:
    """Return what the preset says of itself: `about` and `expect`, both in its own file.

    Raises `ConfigError` where there is no such preset, or it does not say.
    """
    table = _table(name)
    match [table[key].value for key in ("about", "expect") if key in table]:
        case [str(about), str(expect)]:
            return about, expect
        case _:
            raise ConfigError([f"{label(name)}: a preset says `about` and `expect` in its own file"])


def absolute(reference: str, name: str) -> str:
    """Return the name of the preset that `extends: reference` means in preset `name`.

    A reference that ends in `.yaml` starts at the preset's own folder, any other is a name already.
    """
    if not reference.endswith(_ENDING):
        return reference
    return normpath(join(dirname(name), reference.removesuffix(_ENDING)))


def copy(name: str, target: Path) -> Path:
    """Write the preset to `target` for editing, and the schema that helps editors beside it; return the file written.

    A folder as target takes the preset's own file name. Raises `ConfigError` where the file exists already.
    """
    file = target / f"{name.rpartition('/')[2]}{_ENDING}" if target.is_dir() else target
    content = f"# yaml-language-server: $schema={SCHEMA_FILE}\n{_movable(name)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except FileExistsError:
        raise ConfigError([f"{file}: exists already; name another file, or remove it first"]) from None
    file.with_name(SCHEMA_FILE).write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
    return file


def _movable(name: str) -> str:
    """Return the preset's text with full names of presets in `extends`, so that it loads from any folder."""
    content = text(name)
    extends = _table(name).get("extends")
    if extends is None:
        return content
    lines = content.splitlines(keepends=True)
    before, after = lines[: extends.origin.line - 1], "".join(lines[extends.origin.line - 1 :])
    for node in [below for _, below in extends.children] or [extends]:
        reference = str(node.value)
        after = after.replace(reference, absolute(reference, name), 1)
    return "".join(before) + after


def _table(name: str) -> dict[str, Node]:
    try:
        tree = read(text(name), lambda line: Origin("file", label(name), line), [])
    except Fault as fault:
        raise ConfigError([str(fault.problem)]) from None
    return tree.table if tree else {}


def _names(folder: Traversable, above: str, bases: bool) -> list[str]:
    found: list[str] = []
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            found += _names(entry, f"{above}{entry.name}/", bases)
        elif entry.name.endswith(_ENDING) and (bases or not entry.name.startswith("_")):
            found.append(above + entry.name.removesuffix(_ENDING))
    return found
