"""The files that a source is read from."""

from pathlib import Path

from configs.data import Files, Source
from distill.files import digest_input


def files_of(source: Source) -> dict[str, str]:
    """Return the SHA-256 of every local file of a source, by its path; none where it is no file."""
    if not isinstance(source, Files):
        return {}
    paths = [source.path, *filter(None, [source.target_path])]
    return {str(file): digest_input(file) for path in paths for file in _local_files(path)}


def _local_files(path: str) -> list[Path]:
    whole = Path(path).expanduser()
    if whole.is_dir():
        return sorted(part for part in whole.rglob("*") if part.is_file())
    if whole.is_file():
        return [whole]
    return sorted(whole.parent.glob(whole.name)) if whole.parent.is_dir() else []
