"""Terms that are code of the user's own."""

import importlib
from collections.abc import Callable

from configs.errors import ConfigError
from configs.objective import CustomTerm
from distill.protocols import LossTerm
from distill.terms.sides import Sides


def custom_term(section: CustomTerm, sides: Sides, where: str) -> LossTerm:
    """Return what a factory makes. Raises ConfigError where it may not run, is not there, or makes no term."""
    if not sides.allow_code:
        raise ConfigError([f"{where}: `{section.factory}` is code of your own; it runs only under --allow-code"])
    term = _factory(section.factory, where)(section.options)
    if not isinstance(term, LossTerm):
        raise ConfigError([f"{where}: `{section.factory}` returned `{type(term).__name__}`, no LossTerm"])
    return term


def _factory(path: str, where: str) -> Callable[[dict[str, str | int | float | bool]], object]:
    module, _, name = path.partition(":")
    try:
        factory = vars(importlib.import_module(module))[name]
    except (ImportError, ValueError, KeyError) as error:
        raise ConfigError(
            [f"{where}: cannot find `{path}`; it is written package.module:function ({error})"]
        ) from error
    if not callable(factory):
        raise ConfigError([f"{where}: `{path}` is no function"])
    found: Callable[[dict[str, str | int | float | bool]], object] = factory
    return found
