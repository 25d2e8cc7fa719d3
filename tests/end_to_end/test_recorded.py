"""A student of texts that somebody else wrote: matched with their sources, filtered, learnt from, reported."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.helpers import pairs

SOURCES = pairs.sentences(40, seed=9)
PROVENANCE = "A **translator** from <next door>, 2019"
WORDS = {"text": "en", "target": "de"}


def stages(**recorded: Any) -> dict[str, Any]:
    told = {"kind": "recorded", "texts": ["answers"], "provenance": PROVENANCE, "licence": "CC0-1.0", **recorded}
    student = {"kind": "train", "teacher": "none", "data": ["told"], "objective": [{"kind": "task"}]}
    return {
        "texts": told,
        "best": {"kind": "select", "generated": "texts", "filters": {"copies": 0.9, "length_ratio": None}},
        "student": {**student, "training": pairs.TRAINING},
        "export": {"kind": "export", "student": "student", "data": "test"},
    }


def answers(folder: Path) -> Path:
    """Two texts for every source, the second time in other words; of the last source a copy alone."""
    rows = [{"en": text, "de": target} for text, target in SOURCES[:-1]]
    rows += [{"en": text, "de": f"{target} {target}"} for text, target in SOURCES[:-1]]
    rows += [{"en": SOURCES[-1][0], "de": f"{SOURCES[-1][0]}."}]
    (folder / "answers.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return folder / "answers.json"


def run_file(folder: Path, data: dict[str, Any], given: dict[str, Any]) -> Path:
    known = {"told": {"kind": "stage", "stage": "best"}, **data}
    return pairs.run_file(folder, given, data=known, teacher={"model": str(pairs.vocabulary(folder / "vocabulary"))})


def results(run: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.parent / "run" / stage / "stage.json").read_text(encoding="utf-8"))
    return found["results"]


def test_from_a_list_of_answers_to_a_report_that_names_their_writer(call, tmp_path: Path) -> None:
    path = answers(tmp_path)
    run = run_file(tmp_path, {"answers": {"path": str(path), "columns": WORDS}}, stages())
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    told = results(run, "texts")
    assert (told["rows"], told["texts"], told["without_text"], told["unmatched"]) == (40, 79, 0, 0)
    assert told["files"] == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    chosen = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pydict()
    copied = {SOURCES[-1][0]: f"{SOURCES[-1][0]}."}
    assert dict(zip(chosen["source"], chosen["text"], strict=True)) == {**dict(SOURCES), **copied}
    assert set(chosen["score"]) == {None} and results(run, "best")["left_out"] == {"copy": 1}
    page, text = ((run.parent / "run" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "A **translator** from &lt;next door&gt;, 2019" in page and "CC0-1.0" in page and "79 texts" in page
    assert r"A \*\*translator\*\* from &lt;next door&gt;, 2019; licence: CC0-1.0" in text
    card = (run.parent / "run/export/transformers/README.md").read_text(encoding="utf-8")
    assert "The texts of **texts** were written by others" in card
    footer = pq.read_schema(next((run.parent / "run/texts/shards").glob("*.parquet"))).metadata
    assert PROVENANCE in footer[b"distill.shard"].decode()


def test_texts_are_matched_by_id_and_source_and_compared_with_the_rows_own_targets(call, tmp_path: Path) -> None:
    """The nearer of two texts is second in the file; some rows have none, and some texts no row."""
    columns = {**WORDS, "id": "key"}
    for name, rows in {
        "gold.csv": [(number, *SOURCES[number]) for number in range(30)],
        "answers.csv": [(number, SOURCES[number][0], "so") for number in range(10, 40)],
    }.items():
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as handle:
            csv.writer(handle).writerows([("key", "en", "de"), *rows])
    more = tmp_path / "more.jsonl"
    lines = [json.dumps({"key": n, "en": SOURCES[n][0], "de": SOURCES[n][1]}) for n in range(10, 30)]
    more.write_text("\n".join(lines), encoding="utf-8")
    files = {"gold": tmp_path / "gold.csv", "answers": tmp_path / "answers.csv", "more": more}
    data = {name: {"path": str(path), "columns": columns} for name, path in files.items()}
    given = stages(texts=["answers", "more"], data=["gold"])
    given = {"texts": given["texts"], "best": {**given["best"], "by": "chrf", "filters": None}}
    run = run_file(tmp_path, data, given)
    code, out, err = call("run", str(run))
    assert code == 0, out + err
    told = results(run, "texts")
    assert (told["rows"], told["texts"], told["without_text"], told["unmatched"]) == (20, 40, 10, 10)
    chosen = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pydict()
    assert dict(zip(chosen["source"], chosen["text"], strict=True)) == dict(SOURCES[10:30])
    assert set(chosen["hypothesis"]) == {1} and min(chosen["likeness"]) == 100.0
    part = pq.read_schema(run.parent / "run/best/part-00000.parquet").metadata[b"distill"]
    assert json.loads(part)["notes"] == {"sources left out, nobody wrote a text": 10}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.texts.provenance=null", "stages.texts.provenance"),
        ("stages.texts.texts=[answer]", "stages.texts.texts.0: there is no source `answer`; did you mean `answers`?"),
        ("stages.best.by=bleu", "stages.best.by: `bleu` compares with targets of the rows' own, and stage `texts` has"),
        ("data.answers.columns.target=null", "data.answers: row 1 has no target, and stages.texts.texts needs one"),
        ("data.answers.columns.target=dee", "column `dee` not in"),
        ("stages.best.generated=student", "stages.best.generated: stage `student` does not come before `best`"),
        ("task={kind: regression}", "stages.texts.kind: `recorded` takes texts, and `task.kind` is `regression`"),
    ],
)
def test_what_is_wrong_is_said_at_set_up(call, tmp_path: Path, override: str, expected: str) -> None:
    run = run_file(tmp_path, {"answers": {"path": str(answers(tmp_path)), "columns": WORDS}}, stages())
    code, _, err = call("check", str(run), override)
    assert code == 2 and expected in " ".join(err.split())


def test_texts_for_other_sources_are_refused_at_set_up(call, tmp_path: Path) -> None:
    data = {"answers": {"path": str(answers(tmp_path)), "columns": WORDS}}
    run = run_file(tmp_path, data, stages(data=["train"]))
    code, _, err = call("check", str(run))
    assert code == 2
    assert "stages.texts.texts: none of 40 sources with a text is among the 120 of train" in " ".join(err.split())


def test_a_shard_that_was_edited_is_found_and_its_advice_helps(call, tmp_path: Path) -> None:
    given = stages()
    run = run_file(
        tmp_path,
        {"answers": {"path": str(answers(tmp_path)), "columns": WORDS}},
        {name: given[name] for name in ("texts", "best")},
    )
    assert call("generate", str(run))[0] == 0
    (shard,) = (run.parent / "run/texts/shards").glob("*.parquet")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    code, _, err = call("run", str(run))
    assert code == 2 and "is not as it was written; delete it, and the same command writes it again" in err
    shard.unlink()
    assert call("run", str(run))[0] == 0 and shard.read_bytes() == whole
