"""Beam search: ours over the transformers model, against the model's own `generate`, with CTranslate2 beside them."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.clock import Lap, Samples, Stopwatch
from benchmarks.goals import Result, goals
from benchmarks.stock_search import Generate, NBest
from configs.data import Task
from configs.decoding import Decoding
from configs.training import Machine
from distill.data.locate import missing
from distill.data.readers import read_lines
from distill.errors import DataError, ModelError
from distill.models import Loaded, ModelSource, fingerprint, load
from distill.protocols import TextTeacher
from pipelines.machine import prepare
from teachers.text.huggingface import HuggingFaceWriter

LIMIT = 1e-4
"""Nats a token by which the score of a hypothesis may differ between the two searches."""
OURS, IN_ORDER, BY_LENGTH, CONVERTED = "ours", "generate, file order", "generate, by length", "CTranslate2 fp32"
GOALS = {"B1-length": BY_LENGTH, "B1-order": IN_ORDER}


@dataclass(frozen=True)
class Options:
    """What to measure."""

    model: str
    """Folder of an encoder-decoder"""
    sources: Path
    """One sentence a line"""
    sentences: int = 200
    beams: int = 5
    max_tokens: int = 128
    """Bound on the tokens of a text, the same for all engines"""
    threads: int = 2
    rounds: int = 5


@dataclass(frozen=True)
class Verdict:
    """Whether two engines found the same."""

    sentences: int
    same: int
    """Sentences whose best text is the same"""
    worst: float
    """Largest difference of a score, over all hypotheses of all sentences, nats a token"""

    @property
    def holds(self) -> bool:
        """Whether they did."""
        return self.same == self.sentences and self.worst <= LIMIT

    def said(self) -> str:
        """Say it in a line."""
        return f"{self.same} of {self.sentences} texts are the same, scores differ by up to {self.worst:.1e}"


class Writer:
    """An engine of ours, with the sentences it writes for."""

    def __init__(self, teacher: TextTeacher, sentences: Sequence[str], decoding: Decoding) -> None:
        """Take an engine."""
        self._teacher = teacher
        self._sentences = sentences
        self._decoding = decoding

    def n_best(self) -> NBest:
        """Return all hypotheses with their scores."""
        every = self._decoding.model_copy(update={"hypotheses": self._decoding.beams})
        found = dict(self._teacher.generate(self._sentences, every))
        texts = [found[place].texts for place in range(len(self._sentences))]
        return [([one.text for one in row], [one.score or 0.0 for one in row]) for row in texts]

    def lap(self, _: int) -> Lap:
        """Write the best text of every sentence."""
        watch = Stopwatch()
        written = list(self._teacher.generate(self._sentences, self._decoding))
        return Lap(*watch.seconds(), float(len(written)))


def run(options: Options, console: Console, path: Path) -> int:
    """Compare what is written, measure, print, write the JSON file, and return the exit code.

    Raises UserError for a model or sentences that are not there.
    """
    device = prepare(Machine(accelerator="cpu", threads=options.threads, devices=1))
    sentences = _sentences(options)
    loaded = _model(options.model)
    decoding = Decoding(beams=options.beams, max_tokens=options.max_tokens)
    ours = Writer(HuggingFaceWriter([loaded.model], loaded.tokenizer, ""), sentences, decoding)
    stock = {name: Generate(loaded, sentences, decoding, by_length=name == BY_LENGTH) for name in (IN_ORDER, BY_LENGTH)}
    written = ours.n_best()
    verdict = compare(written, stock[BY_LENGTH].n_best())
    console.print(f"  ours and `generate`: {verdict.said()}", highlight=False)
    found: dict[str, Any] = {
        "model": {"name": Path(options.model).name, "fingerprint": fingerprint(ModelSource(options.model))},
        "sentences": len(sentences),
        "decoding": decoding.model_dump(),
        "equality": asdict(verdict) | {"limit": LIMIT, "holds": verdict.holds},
    }
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        converted, found[CONVERTED] = _converted(loaded, Path(folder), sentences, decoding, options.threads)
        if converted is not None:
            against = compare(written, converted.n_best())
            found[CONVERTED] = asdict(against)
            console.print(f"  ours and {CONVERTED}: {against.said()}", highlight=False)
        turns = {OURS: ours.lap, **{name: one.lap for name, one in stock.items()}}
        turns |= {CONVERTED: converted.lap} if converted is not None else {}
        results = _measured(turns, options, found) if verdict.holds else _skipped()
    if "clock" in found:
        _table(console, found)
    report.show(console, _title(found), results)
    report.write(path, found, results, device)
    return report.exit_code(results)


def compare(ours: NBest, theirs: NBest) -> Verdict:
    """Compare the best texts, and the scores of all hypotheses, each list from the best down: two hypotheses of nearly
    one score may stand in either order.
    """
    pairs = list(zip(ours, theirs, strict=True))
    same = sum(own[0][0] == its[0][0] for own, its in pairs)
    gaps = (abs(a - b) for own, its in pairs for a, b in zip(own[1], its[1], strict=True))
    return Verdict(len(pairs), same, max(gaps, default=0.0))


def _model(folder: str) -> Loaded:
    loaded = load(ModelSource(folder), Task(kind="generation"), (), "--model")
    if not loaded.model.config.is_encoder_decoder:
        raise ModelError(f"--model: {folder} is a {loaded.model.config.model_type}, no encoder-decoder")
    return loaded


def _sentences(options: Options) -> list[str]:
    if not options.sources.is_file():
        raise DataError(f"--sources: {missing(options.sources)}")
    filled = (line.strip() for _, line in read_lines(options.sources) if line.strip())
    found = list(islice(filled, options.sentences))
    if len(found) < options.sentences:
        raise DataError(f"--sources: {options.sources} holds {len(found)} sentences, {options.sentences} are asked for")
    return found


def _converted(
    loaded: Loaded, folder: Path, sentences: Sequence[str], decoding: Decoding, threads: int
) -> tuple[Writer | None, str]:
    """Return the converted model, or why there is none."""
    try:
        from teachers.text.ctranslate2 import CTranslate2Writer
    except ImportError:
        return None, "ctranslate2 is not installed: pip install 'distill-pipeline[ctranslate2]'"
    try:
        made = CTranslate2Writer(loaded.model, loaded.tokenizer, "", folder, threads=threads)
    except ModelError as error:
        return None, str(error)
    return Writer(made, sentences, decoding), ""


def _measured(turns: dict[str, Callable[[int], Lap]], options: Options, found: dict[str, Any]) -> list[Result]:
    """Let the engines take turns, and hold what comes out against the goals."""
    samples = Samples.gather(turns, options.rounds, options.threads)
    clock = samples.clock
    found |= {"clock": clock, "contended": samples.contended, "cores_used": samples.cores, "samples": samples.raw()}
    found["sentences_per_second"] = {name: samples.speed(name, clock) for name in turns}
    found["times_generate"] = {
        name: {stock: samples.ratio(name, stock, clock) for stock in GOALS.values()} for name in turns
    }
    return [Result(goals()[goal], samples.ratio(OURS, stock, clock)) for goal, stock in GOALS.items()]


def _skipped() -> list[Result]:
    return [Result(goals()[goal], None, "the two searches do not write the same") for goal in GOALS]


def _table(console: Console, found: dict[str, Any]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "sentences/s", *(f"× {name}" for name in GOALS.values())):
        table.add_column(column, justify="right" if column else "left")
    for name, speed in found["sentences_per_second"].items():
        ratios = (f"{found['times_generate'][name][stock]:.2f}" for stock in GOALS.values())
        table.add_row(name, f"{speed:.1f}", *ratios)
    console.print(table)


def _title(found: dict[str, Any]) -> str:
    if "clock" not in found:
        return "Beam search: no speed, the gate is shut"
    busy = " (other work held the cores)" if found["contended"] else ""
    return f"Beam search, on the {found['clock']} clock: {found['cores_used']:.2f} cores in use{busy}"
