import pytest

from configs.errors import UserError
from configs.training import Machine
from pipelines import machine
from pipelines.blame import Word, blame
from pipelines.launch import needs_processes
from pipelines.machine import Device, prepare
from pipelines.place import Place, environment, here, identity, is_helper, share

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "n0", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
}
STARTS = pytest.mark.parametrize(("launcher", "given"), [("torchrun", TORCHRUN), ("srun", SRUN)])


@pytest.fixture
def surrounded(monkeypatch):
    """Return a function that puts this process into a launcher's environment."""

    def surround(given):
        monkeypatch.setattr("os.environ", {"PATH": "/usr/bin", **given})

    surround({})
    return surround


@STARTS
def test_the_launcher_says_which_process_this_is(surrounded, launcher, given):
    surrounded(given)
    assert here() == Place(launcher, rank=3, world=4, local=1, host=1, hosts=2)
    assert is_helper() and identity() and share() == (3, 4)
    assert type(environment()).__name__ == {"torchrun": "TorchElasticEnvironment", "srun": "SLURMEnvironment"}[launcher]
    assert environment().global_rank() == 3 and environment().world_size() == 4
    surrounded(given | {name: "0" for name in ("RANK", "SLURM_PROCID") if name in given})
    assert not is_helper()


@STARTS
def test_auto_takes_what_was_started_and_a_contradiction_is_refused(surrounded, launcher, given):
    surrounded(given)
    device = prepare(Machine(accelerator="cpu", nodes="auto", threads=1))
    assert (device.nodes, device.devices, device.world) == (2, 2, 4)
    assert not needs_processes(device)
    with pytest.raises(UserError, match=rf"nodes 1 × devices 2 is not what {launcher} started: 4 processes on 2 hosts"):
        prepare(Machine(accelerator="cpu", threads=1))
    with pytest.raises(UserError, match=r"nodes 2 × devices 1 is not what"):
        prepare(Machine(accelerator="cpu", nodes=2, devices=1, threads=1))


def test_torchrun_inside_of_a_job_comes_first_and_a_job_without_srun_is_one_process(surrounded):
    surrounded(SRUN | TORCHRUN)
    assert here().launcher == "torchrun"
    surrounded({name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"})
    assert here() is None and type(environment()).__name__ == "LightningEnvironment"


def test_several_hosts_need_a_launcher(surrounded):
    assert needs_processes(Device("cpu", 2, 1, fast_fp32=False))
    with pytest.raises(UserError, match=r"machine.nodes: 2 hosts were asked for, and this process was started alone"):
        needs_processes(Device("cpu", 1, 1, fast_fp32=False, nodes=2))


def test_what_a_launcher_left_out_is_named(surrounded):
    surrounded({"RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match="RANK is set, LOCAL_RANK, GROUP_RANK, GROUP_WORLD_SIZE are not"):
        here()
    surrounded(TORCHRUN | {"RANK": "first"})
    with pytest.raises(UserError, match="RANK: 'first' is no number"):
        here()
    surrounded({name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"})
    with pytest.raises(UserError, match="--ntasks-per-node"):
        here()


def test_a_requeued_job_is_another_start(surrounded):
    surrounded(SRUN)
    first = identity()
    surrounded(SRUN | {"SLURM_RESTART_COUNT": "1"})
    assert identity() != first


def test_a_torchrun_that_is_started_again_is_another_start(surrounded):
    """Run id, address and port are the same; the folder it makes for itself is not."""
    one_host = TORCHRUN | {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}

    def found(start: str, rank: int) -> str:
        surrounded(
            one_host | {"TORCHELASTIC_ERROR_FILE": f"/tmp/torchelastic_x/none_{start}/attempt_0/{rank}/error.json"}
        )
        return identity()

    assert found("a", 0) == found("a", 1) != found("b", 0)
    surrounded(one_host)
    assert identity()


def test_jobs_of_an_array_share_the_work_with_their_processes(surrounded):
    array = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4", "SLURM_ARRAY_TASK_COUNT": "3"}
    surrounded(array)
    assert share() == (1, 3)
    surrounded(SRUN | array)
    assert share() == (7, 12)


def test_srun_says_how_many_cores_a_process_has(surrounded, monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    surrounded(SRUN)
    assert prepare(Machine(accelerator="cpu", nodes="auto")).threads == 4
    surrounded(SRUN | {"SLURM_CPUS_PER_TASK": "3"})
    assert prepare(Machine(accelerator="cpu", nodes="auto")).threads == 3


def _word(rank, state, reason="", step=7, begun=None):
    return Word(
        rank, 3, node=rank, host=f"n{rank}", step=step, state=state, reason=reason, begun={"0": begun} if begun else {}
    )


@pytest.mark.parametrize(
    ("faults", "exits", "said"),
    [
        ([_word(0, "lost", "gone"), _word(2, "failed", "E: boom")], {}, "rank 2 on host n2 failed in step 7: E: boom"),
        ([_word(0, "lost", "gone"), _word(2, "lost", "gone")], {}, "rank 1 on host n1 is gone: it was killed, or its"),
        ([_word(0, "lost", "gone")], {1: "was killed by SIGKILL"}, "rank 1 on host n1 was killed by SIGKILL in step 7"),
        ([_word(0, "lost", "timeout"), _word(2, "lost", "timeout")], {}, "rank 1 on host n1 did not answer for 9 s in"),
        (
            [_word(0, "lost", "timeout"), _word(1, "hangs", "a.py:3, in f"), _word(2, "lost", "timeout")],
            {},
            "rank 1 on host n1 did not answer for 9 s in step 7; it is at a.py:3, in f",
        ),
        (
            [_word(0, "lost", "timeout", begun=9), _word(1, "hangs", "a.py:3, in f", begun=8), _word(2, "lost", "")],
            {},
            "rank 1 on host n1 did not answer for 9 s in step 7; it is at a.py:3, in f",
        ),
        (
            [_word(0, "lost", "timeout", begun=9), _word(1, "hangs", "a.py:3, in f", begun=9), _word(2, "lost", "")],
            {},
            "rank 0 on host n0 and rank 1 on host n1 and rank 2 on host n2 lost each other in step 7: no answer",
        ),
        (
            [_word(0, "lost", "", begun=9), _word(1, "hangs", "a.py:3, in f", begun=9), _word(2, "lost", "")],
            {},
            "rank 1 on host n1 did not answer for 9 s in step 7; it is at a.py:3, in f",
        ),
        (
            [_word(rank, "lost", "timeout") for rank in range(3)],
            {},
            "rank 0 on host n0 and rank 1 on host n1 and rank 2",
        ),
    ],
)
def test_the_one_to_blame_is_found(faults, exits, said):
    beats = [_word(rank, "works", step=5) for rank in range(3)]
    assert blame(faults, beats, 9, exits).startswith(said)


def test_nobody_misses_who_ended():
    beats = [_word(0, "works"), _word(1, "ended"), _word(2, "works")]
    assert blame([_word(0, "lost", "timeout")], beats, 9, {}).startswith("rank 2 on host n2 did not answer")
