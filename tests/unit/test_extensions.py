import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from pipelines import extensions
from pipelines.extensions import VARIABLE, settle, stale


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def test_the_lock_of_a_killed_build_is_removed_and_that_of_a_live_one_stays(home, monkeypatch):
    folder = settle()
    assert folder.is_relative_to(home) and os.environ[VARIABLE] == str(folder)
    for name in ("dead", "live"):
        (folder / name).mkdir()
    take = "import os, sys, torch.utils.file_baton as t; t.FileBaton(sys.argv[1]).try_acquire(); os._exit(9)"
    subprocess.run([sys.executable, "-c", take, str(folder / "dead/lock")], check=False)
    live = FileBaton(str(folder / "live/lock"))
    assert live.try_acquire() and (folder / "dead/lock").is_file()
    assert stale(folder) == [folder / "dead/lock"]
    monkeypatch.delenv(VARIABLE)
    assert settle() == folder
    assert not (folder / "dead/lock").exists() and (folder / "live/lock").exists()
    live.release()


def test_a_folder_of_the_users_is_left_alone(home, monkeypatch):
    (home / "mine/op").mkdir(parents=True)
    (home / "mine/op/lock").touch()
    monkeypatch.setenv(VARIABLE, str(home / "mine"))
    assert settle() == home / "mine" and (home / "mine/op/lock").exists()


def test_the_doctor_shows_it(home, call):
    code, out, _ = call("doctor")
    assert code == 0 and str(home / "distill/extensions") in out.replace("\n", "").replace(" ", "")


@pytest.fixture
def homeless(home, monkeypatch) -> Path:
    """A home that cannot be written to, as that of another user."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    return home


def test_without_a_home_they_go_to_the_temporary_folder(homeless, monkeypatch):
    folder = settle()
    assert folder.is_dir() and folder.is_relative_to(homeless / f"distill-{os.getuid()}")
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert settle() == folder


def test_a_folder_that_others_may_write_to_is_not_run_from(homeless):
    theirs = homeless / f"distill-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    assert not settle().is_relative_to(theirs) and not list(theirs.iterdir())


def test_containers_that_share_a_home_share_no_locks(home, monkeypatch):
    folder = settle()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(extensions, "space", lambda: "pid:[1]")
    assert settle() != folder


def test_a_lock_that_is_given_back_while_one_looks_is_none(home, monkeypatch):
    folder = settle()
    (folder / "op").mkdir()
    (folder / "op/lock").touch()

    def open_files() -> set[str]:
        (folder / "op/lock").unlink()
        return set()

    monkeypatch.setattr(extensions, "_open_files", open_files)
    assert stale(folder) == []
