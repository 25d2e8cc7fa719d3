"""Texts and logits in one language are not taken for those in another, nor those of other tokens."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from teachers.record import TokenRecord, read_record
from tests.helpers import many_languages, pairs

TO_ENGLISH = ["task.source_language=deu_Latn", "task.target_language=eng_Latn"]
TO_FRENCH = ["task.source_language=deu_Latn", "task.target_language=fra_Latn"]
FROM_FRENCH = ["task.source_language=fra_Latn", "task.target_language=eng_Latn"]
STAGES = {
    "texts": {"kind": "generate", "data": ["train"], "decoding": {"beams": 2, "max_tokens": 8}},
    "soft": {"kind": "record", "data": ["train"], "top_k": 4},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    many_languages.model_folder(tmp_path / "nllb", "nllb")
    return pairs.run_file(tmp_path, STAGES, teacher={"model": str(tmp_path / "nllb")}, task=pairs.TASK)


def tokens(folder: Path) -> list[object]:
    found: list[object] = pq.read_table(folder / "texts/shards").sort_by("id")["tokens"].to_pylist()
    return found


def logits(folder: Path) -> TokenRecord:
    found = read_record(folder / "soft")
    assert isinstance(found, TokenRecord)
    return found


@pytest.mark.parametrize("other", [TO_FRENCH, FROM_FRENCH])
def test_another_language_in_the_same_output_is_written_anew(call, run: Path, other: list[str]) -> None:
    for languages, output in ((TO_ENGLISH, "run"), (other, "run"), (other, "alone")):
        code, out, err = call("run", str(run), *languages, f"output={run.parent / output}")
        assert code == 0, out + err
    again, alone = run.parent / "run", run.parent / "alone"
    assert tokens(again) == tokens(alone)
    assert (logits(again).log_probs == logits(alone).log_probs).all()
