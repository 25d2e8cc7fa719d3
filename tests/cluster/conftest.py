"""What tests on a cluster share."""

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Slurm, cluster


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    """Start a SLURM for a file of tests: a job that hangs in one holds no nodes of another's."""
    with cluster(tmp_path_factory.mktemp("slurm")) as made:
        yield made
