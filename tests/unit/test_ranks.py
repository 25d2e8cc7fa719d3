import pytest
import torch.distributed as dist

from distill.errors import PeerLost
from pipelines.ranks import Ranks
from pipelines.run_files import read_json

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:1] Connection closed by peer [::1]:1"), "lost", "gone"),
        (
            RuntimeError("[gloo/transport/tcp/buffer.cc:81] Timed out waiting 8000ms for recv"),
            "lost",
            "timeout",
        ),
        (RuntimeError("Application timeout caused pair closure"), "lost", "timeout"),
        (PeerLost("it hung up"), "lost", "gone"),
        (PeerLost("rank 1, which teaches, timed out after 8 s"), "lost", "timeout"),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "lost", "gone"),
        (RuntimeError("boom\nmore"), "failed", "RuntimeError: boom"),
    ],
)
def test_an_error_of_others_is_told_from_an_own_one(tmp_path, monkeypatch, error, state, reason):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    ranks = Ranks(tmp_path, timeout=8)
    ranks._folder.mkdir(parents=True)
    ranks.fail(error)
    (said,) = [read_json(path) for path in tmp_path.rglob("fault-00001.json")]
    assert (said["state"], said["reason"]) == (state, reason)
