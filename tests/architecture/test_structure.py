"""The shape of the house: who imports whom, how large things are, what is in the wheel, what the README promises."""

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "distill", "teachers", "students", "pipelines")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _functions(path: Path) -> list[tuple[str, int]]:
    """Names of a file's functions with their lines, docstrings not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node, clean=False)
            lines = (node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)
            found.append((f"{path.relative_to(ROOT)}:{node.name}", lines))
    return found


def test_files_and_functions_fit_in_the_eye():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    functions = dict(pair for path in SOURCES for pair in _functions(path))
    lengths = sorted(functions.values())
    assert max(sizes.values()) <= 300, max(sizes, key=lambda name: sizes[name])
    assert statistics.median(sizes.values()) <= 120
    assert lengths[-1] <= 50, max(functions, key=lambda name: functions[name])
    assert statistics.median(lengths) <= 8 and lengths[int(0.9 * len(lengths))] <= 22


def test_every_public_thing_has_a_docstring():
    found = {path: list(_undocumented(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


def _undocumented(parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Names of public classes, functions and methods without a docstring; what is private stays private inside."""
    for node in parent.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(node)


def test_imports_go_one_way():
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter, "import-linter belongs to the extra `dev`"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


FORBIDDEN = {
    r"\bpickle\b": "pickles are never read or written",
    r"torch\.load\((?![^)]*weights_only=True)": "torch.load without weights_only=True",
    r"yaml\.(?:unsafe_|full_)?load\(": "YAML is loaded by our strict loader only",
    r"(?<![.\w])(?:eval|exec)\(": "no code is made from text",
    r"shell=True": "no shell",
    r"trust_remote_code": "no foreign code",
    r"extractall\(": "no archives are unpacked",
    r"\bTODO\b|\bFIXME\b|NotImplementedError": "nothing is left undone",
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_the_tree_holds_nothing_dangerous_or_unfinished(pattern):
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(pattern, line) and not line.strip().startswith(("#", '"""'))
    ]
    assert found == [], FORBIDDEN[pattern]


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; sys.argv = ['distill', '--help']\n"
        "from pipelines.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)"
    )
    seconds = []
    for _ in range(3):  # time on the processor: a busy machine must not decide
        before = os.times()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.5, seconds


def test_commands_start_without_what_they_do_not_use():
    """Each imports its first module alone: which of a module's own imports comes first decides."""
    entries = [f"pipelines.{name}" for name in ("run", "adapter_facts", "adapter_moves", "cluster_plan", "report")]
    code = f"""
import importlib, os, sys, torch, transformers
for entry in {entries}:
    child = os.fork()
    if not child:
        importlib.import_module(entry)
        os._exit(int("bitsandbytes" in sys.modules))
    assert os.waitpid(child, 0)[1] == 0, entry
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_processes_are_started_before_what_they_alone_need_is_imported():
    code = (
        "import sys; sys.argv = ['distill', 'run', 'demo', 'machine.accelerator=cpu', 'machine.devices=2']\n"
        "from pipelines import cli, launch\n"
        "launch.start = lambda *_: print({'lightning', 'peft', 'datasets'} & set(sys.modules)) or 7\n"
        "cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "set()\n"), done.stderr[-2000:]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "runs", "build", "dist", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.namelist()


def test_the_wheel_holds_the_five_packages_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel if ".dist-info" not in name}
    assert tops == set(PACKAGES)


def test_the_wheel_holds_all_that_is_read_at_run_time(wheel):
    data = [
        path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in (".yaml", ".j2", ".py")
    ]
    assert {str(path.relative_to(ROOT)) for path in data} <= set(wheel)


def test_the_readme_tells_the_truth():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = set(re.findall(r"^(?:\$ )?make ([\w-]+)", readme, flags=re.MULTILINE))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test"} <= made <= targets
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link
