"""Every strategy on two hosts gives the losses and the weights of one process."""

from pathlib import Path

import pytest

from tests.cluster.hosts import hosts, missing
from tests.helpers.many import listed, train_all
from tests.helpers.same import is_the_same
from tests.helpers.spread import SOME, STUDENTS, Case, jobs_of, name_of, spread_runs

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    runs = spread_runs(folder)
    train_all([(runs["live", student], folder / student, ()) for student in STUDENTS], folder)
    jobs = listed(jobs_of(runs, SOME, folder), folder, "machine.nodes=2", "machine.devices=1")
    with hosts() as pair:
        sides = pair.torchrun("-m", "tests.helpers.many", str(jobs), port=29515)
        said = [side.communicate(timeout=900)[0] for side in sides]
    assert [side.returncode for side in sides] == [0, 0], said
    return folder


@pytest.mark.parametrize("case", SOME, ids=name_of)
def test_two_hosts_train_what_one_process_does(trained: Path, case: Case) -> None:
    is_the_same(trained / name_of(case), trained / case[-1], terms=4)
