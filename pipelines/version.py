"""Which code a result comes from."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def commit() -> str | None:
    """Return the commit of the checkout this code runs from, with a mark where files differ; none outside of one."""
    if not (ROOT / ".git").exists():
        return None  # installed: a repository around it would be the user's
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def code() -> str:
    """Return the version of this package, and the commit where there is one."""
    known = commit()
    return version("distill-pipeline") + (f", commit {known}" if known else "")
