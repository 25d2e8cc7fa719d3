"""What the page on clusters shows is what the program does."""

import re
from pathlib import Path

import pytest
import yaml

from configs.load import load
from pipelines import slurm

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "clusters.md").read_text(encoding="utf-8")


def test_the_batch_file_of_the_page_is_the_one_that_is_written(monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/shared/me"))
    monkeypatch.setattr("sys.executable", "/shared/me/.venv/bin/python")
    arguments = ["tinybert/sst2", "teacher.model=PATH"]
    folder = Path("/shared/me/runs/tinybert-sst2")
    job = slurm.Job("tinybert/sst2", arguments, folder, nodes=2, gpus=4, cpus=8, time="08:00:00")
    assert re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) == [slurm.batch_file(job)]


def test_the_manifest_starts_what_loads():
    manifest = yaml.safe_load((DOCS / "pytorchjob.yaml").read_text(encoding="utf-8"))
    hosts = manifest["spec"]["pytorchReplicaSpecs"]
    assert manifest["kind"] == "PyTorchJob" and set(hosts) == {"Master", "Worker"}
    for host in hosts.values():
        container = host["template"]["spec"]["containers"][0]
        assert container["command"][:4] == ["torchrun", "--no-python", "distill", "run"]
        machine = load(container["command"][4], container["command"][5:]).pipeline.machine
        assert machine.nodes == "auto" and machine.devices == "auto"
        assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == manifest["spec"]["nprocPerNode"]


@pytest.mark.parametrize("command", re.findall(r"^ {4}distill (?:run|slurm) (.+)$", PAGE, flags=re.MULTILINE))
def test_the_commands_of_the_page_load(command):
    words = command.split("#")[0].split()
    overrides = [word for word in words[1:] if "=" in word]
    assert load(words[0], overrides).pipeline.stages


def test_the_default_time_out_of_the_page_is_the_default():
    from configs.training import Machine

    assert f"`machine.timeout` seconds ({Machine().timeout})" in PAGE
