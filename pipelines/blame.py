"""Who of several processes is to blame when a run ends, from what each said last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.collectives import is_behind


@dataclass(frozen=True)
class Word:
    """The last that was heard of a process."""

    rank: int
    world: int
    node: int
    host: str
    step: int
    """The optimiser step it was in; 0 outside of trainings."""
    state: str
    """`works` or `ended`; or why it does not go on: `failed` and `refused` (an error of its own; of the user's),
    `hangs` (others failed, and its main thread did not notice), `lost` (others do not answer).
    """
    reason: str = ""
    """In words for people; of who is `lost`, how the others do not answer."""
    process: int = 0
    """Its number on its host, among the processes of a `space`: containers count their own."""
    space: str = ""
    begun: Mapping[str, int] = field(default_factory=dict)
    """How many collectives it has begun, by the names of groups."""

    @property
    def who(self) -> str:
        """Its number and its host."""
        return f"rank {self.rank} on host {self.host}"

    @property
    def when(self) -> str:
        """The step, if it is in one."""
        return f" in step {self.step}" if self.step else ""


def blame(faults: Sequence[Word], beats: Sequence[Word], timeout: float, exits: Mapping[int, str]) -> str:
    """Say who is to blame: whom the launcher saw die; who failed; who is silent where others speak; who hangs."""
    spoke, known = {word.rank: word for word in faults}, {word.rank: word for word in beats}
    step = max((word.step for word in (*faults, *beats)), default=0)
    for rank, how in exits.items():
        if rank not in spoke:
            return f"{_name(rank, known)} {how}{_in(step)}"
    for word in faults:
        if word.state in ("failed", "refused"):
            return f"{word.who} failed{word.when}: {word.reason}"
    gone = any(word.reason == "gone" for word in faults)
    why = "is gone: it was killed, or its host was lost" if gone else f"did not answer for {timeout:g} s"
    world = max((word.world for word in (*faults, *beats)), default=0)
    ended = {word.rank for word in beats if word.state == "ended"}
    silent = [_name(rank, known) for rank in range(world) if rank not in spoke and rank not in ended]
    if silent:
        return f"{' and '.join(silent[:4])} {why}{_in(step)}"
    for word in faults:
        if word.state == "hangs" and not _is_cut_off(word, faults):
            return f"{word.who} did not answer for {timeout:g} s{_in(step)}; it is at {word.reason}"
    names = " and ".join(word.who for word in list(spoke.values())[:4])
    return f"{names} lost each other{_in(step)}: no answer for {timeout:g} s"


def _is_cut_off(word: Word, faults: Sequence[Word]) -> bool:
    """Whether a process hangs in what others waited for as long and began as well: no one of them stays away."""
    waited = [other for other in faults if other.reason == "timeout" and other.begun]
    return bool(waited) and not any(is_behind(word.begun, other.begun) for other in waited)


def _name(rank: int, known: Mapping[int, Word]) -> str:
    return known[rank].who if rank in known else f"rank {rank}"


def _in(step: int) -> str:
    return f" in step {step}" if step else ""
