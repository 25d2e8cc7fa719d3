"""The processes of a start that train, where others only teach."""

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from pipelines.machine import Device
from pipelines.place import environment, here


class Trainers(ClusterEnvironment):
    """The first processes of a start, which to Lightning are all there are: they form torch's group alone."""

    def __init__(self, every: ClusterEnvironment, world: int) -> None:
        """Take the environment of all processes, and how many of them train."""
        super().__init__()
        self._every = every
        self._world = world

    @property
    def creates_processes_externally(self) -> bool:
        """They are there already."""
        return True

    @property
    def main_address(self) -> str:
        """The address of rank 0."""
        return self._every.main_address

    @property
    def main_port(self) -> int:
        """The port at which they meet."""
        return self._every.main_port

    @staticmethod
    def detect() -> bool:
        """Never found, always given."""
        return False

    def world_size(self) -> int:
        """Return how many train."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """Stay as it is."""

    def global_rank(self) -> int:
        """Return the number among all, which is that among those that train."""
        return self._every.global_rank()

    def set_global_rank(self, rank: int) -> None:
        """Stay as it is."""

    def local_rank(self) -> int:
        """Return the number on its own host."""
        return self._every.local_rank()

    def node_rank(self) -> int:
        """Return the number of its host."""
        return self._every.node_rank()


def training_environment(device: Device) -> ClusterEnvironment:
    """Return Lightning's view of the processes that train."""
    return Trainers(environment(), device.trainers) if device.teachers else environment()


def only_teaches(device: Device) -> bool:
    """Whether this process trains nothing."""
    place = here()
    return place is not None and place.rank >= device.trainers
