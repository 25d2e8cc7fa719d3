"""What a report says of rows and texts: who wrote them, what was left out, and why."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.run_files import RunFiles


def remarks(files: RunFiles) -> list[tuple[str, list[str]]]:
    """Return for each stage that has something to say its sentences."""
    said = [(stage.name, list(_of_stage(stage.kind, stage.results))) for stage in files.stages]
    return [(name, sentences) for name, sentences in said if sentences]


def _of_stage(kind: str, results: Mapping[str, Any]) -> Iterator[str]:
    match kind:
        case "generate" if "engine" in results:
            yield from _generated(results)
        case "select" | "augment" if results.get("summary"):
            yield results["summary"]
            if results.get("unscored"):
                yield f"{results['unscored']:,} texts not judged by the reverse model, longer than its positions"
            if results.get("likeness") is not None:
                yield f"mean likeness to the rows' own targets {results['likeness']:.1f} of 100"
        case "evaluate":
            if results.get("left_out"):
                yield f"{results['left_out']:,} sources left out, longer than the positions of a model"
            for metric, signature in results.get("signatures", {}).items():
                yield f"{metric}: {signature}"
        case "train":
            yield from (f"{what}: {count:,}" for what, count in results.get("notes", {}).items() if count)


def _generated(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"{results['engine']} ({results['why']})"
    if results.get("parity") is not None:
        yield f"log p of a text at most {results['parity']:.2g} nats from the original model's"
    yield f"texts for {results['rows']:,} sources"
    if results.get("left_out"):
        yield f"{results['left_out']:,} sources left out, longer than the teacher's positions"
    if results.get("sentences_per_second"):
        yield f"{results['sentences_per_second']:,} sentences a second"
    if results.get("refused"):
        yield f"refused, and without a text: {results['refused']:,}"
        yield from results["refusals"]
    if "price" in results:
        tokens = f"{results['tokens_in']:,} tokens read and {results['tokens_out']:,} written"
        yield f"{results['requests']:,} requests, {tokens}, price {results['price']:g}"
    if results.get("untold"):
        yield f"not counted: {results['untold']:,} of {results['shards']:,} shards, from before costs were kept"
