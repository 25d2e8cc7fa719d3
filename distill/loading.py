"""What libraries say where weights cannot be read, in one line with the model's name."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from distill.errors import ModelError
from distill.peers import is_of_others


@contextmanager
def loading(name: str, where: str) -> Iterator[None]:
    """Raise ModelError for weights that are damaged, or of another model. What is said of other processes stays as it
    is.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if is_of_others(error):
            raise
        raise ModelError(f"{where}: cannot load {name}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().splitlines()[0]
