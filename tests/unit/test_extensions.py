import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

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
