"""The benchmark of the beam search: no speed before both sides wrote the same, and every number in one file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.search import BY_LENGTH, CONVERTED, IN_ORDER, OURS, compare
from tests.helpers.writers import END, prompts, tokenizer, writer

Search = Callable[..., tuple[int, str, str]]
ENGINES = {OURS, IN_ORDER, BY_LENGTH, CONVERTED}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = writer("marian", seed=4, ends=(END,), max_position_embeddings=256)
    made.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "sources.txt").write_text("\n\n".join(prompts(40)) + "\n", encoding="utf-8")
    return tmp_path / "model"


@pytest.fixture
def search(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Search:
    """Call the benchmark as a user does."""

    def call(*more: str) -> tuple[int, str, str]:
        options = {"--model": model, "--sources": model.parent / "sources.txt", "--json": model.parent / "found.json"}
        named = [str(part) for pair in options.items() for part in pair]
        fast = ["--rounds", "1", "--threads", "1", "--sentences", "36"]  # more than a batch of `generate`
        monkeypatch.setattr("sys.argv", ["benchmarks", "search", *named, *fast, *more])
        code = main()
        return code, *capsys.readouterr()

    return call


def test_all_engines_write_the_same_and_take_their_turns(model: Path, search: Search) -> None:
    code, out, err = search()
    assert code in (0, 1), err  # how fast a tiny model is says nothing
    found = json.loads((model.parent / "found.json").read_text(encoding="utf-8"))
    assert found["equality"]["holds"] and found["equality"]["same"] == found[CONVERTED]["same"] == 36
    assert found["equality"]["worst"] < 1e-5
    assert set(found["samples"]) == set(found["sentences_per_second"]) == ENGINES
    assert all(lap["work"] == 36 for laps in found["samples"].values() for lap in laps)
    assert found["times_generate"][IN_ORDER][IN_ORDER] == 1.0
    judged = {result["goal"]["name"]: result["value"] for result in found["results"]}
    assert judged == {
        "B1-length": found["times_generate"][OURS][BY_LENGTH],
        "B1-order": found["times_generate"][OURS][IN_ORDER],
    }
    assert OURS in out and CONVERTED in out


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--sentences", "41"), "sources.txt holds 40 sentences, 41 are asked for"),
        (("--sources", "none.txt"), "--sources: none.txt not found"),
        (("--model", "./none"), "--model: folder none not found"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(search: Search, more: tuple[str, ...], expected: str) -> None:
    code, _, err = search(*more)
    assert code == 2 and expected in err and err.startswith("error: ")


def test_one_other_text_or_score_shuts_the_gate() -> None:
    written = [(["a", "b"], [-0.1, -0.2]), (["c", "d"], [-0.3, -0.4])]
    assert compare(written, written).holds
    other_text = [written[0], (["d", "c"], [-0.3, -0.4])]
    assert compare(written, other_text).same == 1 and not compare(written, other_text).holds
    other_score = [written[0], (["c", "d"], [-0.3, -0.41])]
    assert compare(written, other_score).worst == pytest.approx(0.01) and not compare(written, other_score).holds
