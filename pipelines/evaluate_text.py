"""Compare models that write, greedily and by beam search, against references and against the teacher's texts."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.decoding import Decoding
from distill import text_metrics
from distill.files import write_json, write_text
from distill.models import Loaded
from distill.protocols import TextTeacher
from pipelines.evaluate import Trained, describe
from pipelines.verdict import GREEDY, Gain, Role, Spread, verdict

EXAMPLES = 6
"""Texts the report shows, spread over the rows"""


@dataclass(frozen=True)
class TextComparison:
    """What is compared, and on what."""

    models: Mapping[Role, Trained]
    sources: Sequence[str]
    references: Sequence[Sequence[str]]
    """The targets of each source, one or more"""
    left_out: int
    """Sources that one of the models has no positions for, and none of them writes for"""
    data: str
    """What the rows are called in the report"""
    metric: str
    decoding: Decoding
    load: Callable[[Role, str], Loaded]
    """Loads the model of a role from a path"""
    writer: Callable[[Loaded, str], TextTeacher]
    """Returns what writes a model's texts, given its path"""


@dataclass(frozen=True)
class _Written:
    """What a model wrote."""

    beam: list[str]
    greedy: list[str]
    seconds: Mapping[str, float]


def evaluate(
    comparison: TextComparison, output: Path, progress: Callable[[Role, int], object] | None = None
) -> dict[str, Any]:
    """Have every model write every row twice, score the texts, say whether distillation was worth it.

    Writes `output/results.json`, and the texts beside it. `progress` is called with a role and the rows just done.
    """
    models: dict[Role, dict[str, Any]] = {}
    written: dict[Role, dict[int, _Written]] = {}
    for role, trained in comparison.models.items():
        written[role] = {}
        for seed, source in trained:
            loaded = comparison.load(role, source.path)
            models.setdefault(role, describe(loaded.model, source))
            written[role][seed] = _write(comparison, comparison.writer(loaded, source.path))
            if progress is not None:
                progress(role, len(comparison.sources))
    for role, by_seed in written.items():
        models[role]["seeds"] = {str(seed): _scores(comparison, written, role, seed) for seed in by_seed}
    metric = comparison.metric
    results = {
        "data": comparison.data,
        "rows": len(comparison.sources),
        "left_out": comparison.left_out,
        "metric": metric,
        "references": sum(map(len, comparison.references)),
        "signatures": {
            name: text_metrics.signature(name, comparison.references)
            for name in dict.fromkeys(("bleu", "chrf", metric))
        },
        "labels": [],
        "roles": list(models),
        "models": models,
        "latency": None,
        "verdict": verdict(models, metric, _gain(comparison, written)),
    }
    rows = list(_rows(comparison, written))
    write_text(output / "texts.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    results["examples"] = rows[:: max(1, len(rows) // EXAMPLES)][:EXAMPLES]
    write_json(output / "results.json", results)
    return results


def _write(comparison: TextComparison, writer: TextTeacher) -> _Written:
    beam = comparison.decoding
    greedy = beam.model_copy(update={"beams": 1, "hypotheses": 1})
    texts, seconds = {}, {}
    for name, how in (("greedy", greedy), ("beam", beam)):
        began = time.perf_counter()
        found = dict(writer.generate(comparison.sources, how))
        seconds[name] = time.perf_counter() - began
        texts[name] = [found[place].texts[0].text for place in range(len(comparison.sources))]
    return _Written(texts["beam"], texts["greedy"], seconds)


def _scores(
    comparison: TextComparison, written: Mapping[Role, Mapping[int, _Written]], role: Role, seed: int
) -> dict[str, float]:
    """Score one model; all but the teacher are compared with what the teacher wrote too."""
    own, references, sources = written[role][seed], comparison.references, comparison.sources
    rouge = comparison.metric.startswith("rouge")
    found = text_metrics.score(own.beam, references, sources, rouge=rouge)
    greedy = text_metrics.score(own.greedy, references, sources, rouge=rouge)
    found |= {f"{name}{GREEDY}": value for name, value in greedy.items() if name in ("chrf", comparison.metric)}
    found |= {f"sentences_per_second{GREEDY}": len(sources) / own.seconds["greedy"]}
    found |= {"sentences_per_second": len(sources) / own.seconds["beam"]}
    if role == "teacher" or "teacher" not in written:
        return found
    teacher = written["teacher"]
    told = teacher.get(seed, next(iter(teacher.values()))).beam
    if all(told):
        found["agreement"] = text_metrics.value("bleu", own.beam, told)
    return found


def _gain(comparison: TextComparison, written: Mapping[Role, Mapping[int, _Written]]) -> Gain | None:
    """Pair what student and baseline wrote by beam search, seed by seed; None where no seed has both."""
    ours, theirs = written.get("student", {}), written.get("baseline", {})
    pairs = {seed: (ours[seed].beam, theirs[seed].beam) for seed in ours if seed in theirs}
    if not pairs:
        return None
    metric, references = comparison.metric, comparison.references
    per_seed = {
        str(seed): text_metrics.value(metric, own, references) - text_metrics.value(metric, other, references)
        for seed, (own, other) in pairs.items()
    }
    spread = Spread.of(list(per_seed.values()))
    interval = text_metrics.bootstrap(metric, list(pairs.values()), references)
    return Gain(per_seed, spread.mean, spread.sd, interval)


def _rows(
    comparison: TextComparison, written: Mapping[Role, Mapping[int, _Written]]
) -> Iterator[dict[str, str | list[str]]]:
    """Yield for each source its references, and what every role's first model wrote."""
    first = {role: next(iter(by_seed.values())) for role, by_seed in written.items()}
    for place in range(len(comparison.sources)):
        row: dict[str, str | list[str]] = {"source": comparison.sources[place]}
        row["references"] = list(comparison.references[place])
        row |= {role: own.beam[place] for role, own in first.items()}
        yield row | {f"{role}{GREEDY}": own.greedy[place] for role, own in first.items()}
