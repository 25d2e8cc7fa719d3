"""The report: whole runs and half-finished ones, hostile texts, plots that show what is in the files."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from distill.errors import DataError
from pipelines import plots
from pipelines.card import model_card
from pipelines.numbers import duration, points, short, short_count, spread
from pipelines.report import code, describe, markdown, write_report
from pipelines.run_files import RunFiles, Trace
from tests.helpers import made_up_run

VOID = {"meta", "br", "link", "img"}
HOSTILE = "<script>alert(1)</script>\"'`|[x](javascript:alert(2))"


class Page(HTMLParser):
    """Tags, attributes and texts of a page; complains about tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def report(folder: Path) -> tuple[Page, str]:
    """Write the report; return the page and the Markdown."""
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8")), (folder / "report.md").read_text(encoding="utf-8")


TEXTS = {
    "texts": (
        "generate",
        {
            "engine": "CTranslate2 (float32): a model",
            "why": "the fastest, and the same model",
            "parity": 2.1e-5,
            "rows": 1000,
            "left_out": 3,
            "sentences_per_second": 12.5,
        },
    ),
    "answers": (
        "generate",
        {
            "engine": "an API",
            "why": "asked for",
            "parity": None,
            "rows": 40,
            "left_out": 0,
            "requests": 40,
            "tokens_in": 1200,
            "tokens_out": 800,
            "price": 0.25,
        },
    ),
    "selected": ("select", {"summary": "900 of 1,000 texts (left out: too long 100)", "likeness": None}),
    "student": ("train", {"notes": {"pairs left out, too long": 7}}),
}


def test_a_whole_run_answers_the_question_first(tmp_path: Path) -> None:
    page, text = report(made_up_run.write(tmp_path))
    assert page.text.index("Was distillation worth it? Yes.") < page.text.index("The models")
    for said in ("97.9 %", "+2.7 points", "7.6×", "9.2×", "91.1 ± 0.3", "14.4 M", "2.4·10⁻⁶", "1 h 43 min"):
        assert said in page.text
    order = ["The models", "Training", "Stages", "Export", "Expected", "How to get this again"]
    assert sorted(order, key=page.text.index) == order
    assert text.startswith("# tinybert/sst2\n")
    assert "**Yes.** On each of 3 seeds the student beats" in text


def test_tables_of_the_markdown_are_whole(tmp_path: Path) -> None:
    _, text = report(made_up_run.write(tmp_path))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_of_several_evaluations_each_has_a_line(tmp_path: Path) -> None:
    folder = made_up_run.write(tmp_path)
    page, text = report(folder)
    assert "All evaluations" not in page.text and "All evaluations" not in text
    stages = made_up_run.CONFIG["stages"]
    config = made_up_run.CONFIG | {"stages": {"swapped": {"kind": "evaluate"}, **stages}}
    made_up_run.write_record(folder, {"config": yaml.safe_dump(config, sort_keys=False)})
    found = yaml.safe_load((folder / "evaluate/results.json").read_text(encoding="utf-8"))
    (student,) = (found["models"][role] for role in ("student",))
    for scores in student["seeds"].values():
        scores |= {"accuracy": 0.625, "accuracy_greedy": 0.5}
    del found["models"]["baseline"]
    made_up_run.write_json(folder / "swapped/results.json", found | {"rows": 77, "data": "elsewhere"})
    page, text = report(folder)
    assert re.search(r"swapped accuracy, 77 rows of elsewhere \S+ 62\.5 ± 0\.0 , greedily 50\.0 ± 0\.0 –", page.text)
    assert re.search(
        r"\| swapped \| accuracy, 77 rows of elsewhere \| \S+ \| 62\.5 ± 0\.0, greedily 50\.0 ± 0\.0 \| – \|", text
    )
    assert re.search(r"\| evaluate \| accuracy, 872 rows of \w+ \|", text)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page, _ = report(made_up_run.write(tmp_path))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert not re.search(r"url\(|@import", (tmp_path / "report.html").read_text(encoding="utf-8"))


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    config = yaml.safe_dump(made_up_run.CONFIG) + f"# {HOSTILE}\n"
    changes = dict.fromkeys(("name", "about", "expect", "command", "machine", HOSTILE), HOSTILE)
    made_up_run.write(tmp_path, changes | {"config": config})
    made_up_run.write_stage(tmp_path / "seed-0" / HOSTILE.replace("/", ""), 3, {f"loss/{HOSTILE}": 1.0})
    made_up_run.write_evaluation(tmp_path, [0.01, 0.02], labels=[HOSTILE, "positive"])
    page, text = report(tmp_path)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 7
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    outside_code = re.sub(r"```+yaml\n.*?\n```+|(?<!`)``(?!`).*?``", "", text, flags=re.S)
    assert "<script>" not in outside_code
    assert "[x](" not in outside_code
    assert "<script>" not in model_card(tmp_path).split("---\n", 2)[2]
    assert front(model_card(tmp_path))["model-index"][0]["name"] == HOSTILE


def test_a_code_block_cannot_be_left_by_its_text(tmp_path: Path) -> None:
    made_up_run.write_record(tmp_path, {"config": "about: x\n# ```\n# # a heading\n"})
    _, text = report(tmp_path)
    assert re.search(r"^````yaml\n.*^````$", text, flags=re.S | re.M)


def test_a_run_with_one_stage_and_no_record_has_a_report(tmp_path: Path) -> None:
    made_up_run.write_stage(tmp_path / "student", 30, {"loss/logits": 1.0})
    page, text = report(tmp_path)
    assert "Not known yet." in page.text
    assert page.text.count("loss · logits") >= 1
    assert "Scores in hundredths" not in page.text
    assert "**Not known yet.**" in text


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    page, _ = report(tmp_path)
    assert "Not known yet." in page.text


def test_a_training_that_still_runs_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "student" / "log" / "from-0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,loss/task,loss\n10,0.7,0.7\n20,0.6,0.6\n30,0.")
    page, _ = report(tmp_path)
    assert "loss · task" in page.text


@pytest.mark.parametrize(
    ("gains", "answer"), [([0.03], "Probably."), ([-0.01, -0.02], "No."), ([0.03, -0.01], "Not clearly.")]
)
def test_the_answer_is_the_verdicts(tmp_path: Path, gains: list[float], answer: str) -> None:
    made_up_run.write_evaluation(tmp_path, gains)
    page, _ = report(tmp_path)
    assert f"Was distillation worth it? {answer}" in page.text


def test_models_that_were_not_timed_have_no_columns_of_times(tmp_path: Path) -> None:
    made_up_run.write_evaluation(tmp_path, [0.02, 0.03], timed=False)
    page, text = report(tmp_path)
    assert "p50" not in page.text + text
    assert "faster" not in page.text + text


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made_up_run.write(tmp_path)
    (tmp_path / "evaluate" / "results.json").write_text('{"models": ')
    with pytest.raises(DataError, match=r"evaluate/results\.json: is no valid JSON"):
        write_report(tmp_path)


def test_what_became_of_rows_and_texts_is_told(tmp_path: Path) -> None:
    made_up_run.write_record(tmp_path, {"config": yaml.safe_dump({"stages": {key: {} for key in TEXTS}})})
    for name, (kind, results) in TEXTS.items():
        made_up_run.write_json(tmp_path / name / "stage.json", {"kind": kind, "seconds": 1, "results": results})
    write_report(tmp_path)
    for form in ("report.md", "report.html"):
        page = " ".join((tmp_path / form).read_text(encoding="utf-8").replace("\\", "").split())
        for sentence in (
            "CTranslate2 (float32): a model (the fastest, and the same model)",
            "log p of a text at most 2.1e-05 nats",
            "3 sources left out, longer than the teacher",
            "40 requests, 1,200 tokens read and 800 written, price 0.25",
            "900 of 1,000 texts (left out: too long 100)",
            "pairs left out, too long: 7",
        ):
            assert sentence in page, (form, sentence)


def test_the_curve_is_of_the_metric_that_decides(tmp_path: Path) -> None:
    stages = {name: {"kind": "train", "training": {"validate_texts": n}} for name, n in (("a", 200), ("b", 0))}
    config = {"task": {"kind": "generation"}, "stages": stages}
    made_up_run.write_record(tmp_path, {"config": yaml.safe_dump(config)})
    for name in stages:
        log = tmp_path / name / "log" / "from-0" / "metrics.csv"
        log.parent.mkdir(parents=True)
        log.write_text("step,validation/log_prob,validation/bleu_greedy\n1,-2,0.1\n2,-1,0.2\n", encoding="utf-8")
    views = describe(RunFiles(tmp_path))["stages"]
    assert [[panel.title for panel in view.panels] for view in views] == [
        ["validation · bleu_greedy"],
        ["validation · log_prob"],
    ]


def test_many_seeds_and_long_names_stay_inside_the_plots(tmp_path: Path) -> None:
    made_up_run.write_evaluation(tmp_path, [0.02] * 12)
    page, _ = report(tmp_path)
    numbers = [value for name, value in page.attributes if name in ("x", "x1", "x2", "cx")]
    assert all(0 <= float(value or 0) <= 440 for value in numbers)


def test_stages_come_in_the_order_of_the_configuration_with_their_roles(tmp_path: Path) -> None:
    files = RunFiles(made_up_run.write(tmp_path))
    assert [stage.name for stage in files.stages] == list(made_up_run.CONFIG["stages"])
    roles = {stage.name: stage.role for stage in files.stages}
    assert (roles["teacher"], roles["general"], roles["labels-only"]) == ("teacher", "student", "baseline")
    assert [trace.seed for trace in files.stages[3].traces] == ["0", "1", "2"]
    assert files.stages[3].seconds == 1800


def test_after_a_resumption_the_later_log_counts(tmp_path: Path) -> None:
    logs = {"from-0": "step,loss\n10,1\n20,2\n30,3\n", "from-20": "step,loss\n30,33\n40,44\n"}
    for name, text in logs.items():
        (tmp_path / "log" / name).mkdir(parents=True)
        (tmp_path / "log" / name / "metrics.csv").write_text(text)
    assert Trace(None, tmp_path).curves["loss"] == [(10, 1), (20, 2), (30, 33), (40, 44)]


def test_what_is_no_number_is_left_out_of_the_curves(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "metrics.csv").write_text("step,loss,other\n10,nan,1\n20,inf,2\nx,3,3\n40,4,\n")
    assert Trace(None, tmp_path).curves == {"loss": [(40, 4)], "other": [(10, 1), (20, 2)]}


def test_long_curves_are_averaged_without_losing_their_level() -> None:
    curve = [(float(step), float(step % 7)) for step in range(10_000)]
    thin = plots.thinned(curve)
    assert len(thin) <= plots.POINTS
    assert sum(value for _, value in thin) / len(thin) == pytest.approx(3, abs=0.05)
    assert plots.thinned(curve[:50]) == curve[:50]


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [1e-8, 2e-8], [-3.0, 1e6], [1e-3, 1e4]])
def test_curves_of_any_range_are_drawn_inside_their_panel(values: list[float]) -> None:
    line = plots.Line("student", "seed 0", [(10.0 * step, value) for step, value in enumerate(values)])
    drawn = plots.curves("loss", [line])
    pairs = re.search(r'points="([^"]+)"', drawn)
    assert pairs is not None
    for pair in pairs[1].split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 240
        assert 0 <= y <= 144


@pytest.mark.parametrize(("low", "high"), [(0.88, 0.94), (0, 1), (-2.5, 3.1), (1e-9, 4e-9), (0, 1_200_000)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = plots.round_numbers(low, high, 5)
    assert 3 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)


def test_decades_cover_small_and_large_spans() -> None:
    assert plots.decades(0.9e7, 2e8) == pytest.approx([1e7, 2e7, 5e7, 1e8, 2e8])
    assert plots.decades(1e-3, 2e4) == pytest.approx([10.0**power for power in range(-3, 5)])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (short(0.0), "0"),
        (short(-0.0312), "−0.0312"),
        (short(2.4e-6), "2.4·10⁻⁶"),
        (short(1e-5), "10⁻⁵"),
        (short(1_234_567), "1.2·10⁶"),
        (short_count(109_483_778), "109 M"),
        (short_count(950), "950"),
        (duration(8.44), "8.4 s"),
        (duration(59.96), "1 min 00 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 05 min"),
        (spread(0.9123, 0.004), "91.2 ± 0.4"),
        (spread(0.9123, None), "91.2"),
        (points(-0.012), "−1.2"),
        (points(-0.0001), "0.0"),
        (spread(-0.0001, None), "0.0"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected


HARD = [
    "a|b\n# c <i> [d](e) *f* `g`",
    'the model\'s 97.0 & "more" &#39; &amp; a_b_c ~x~ \\',
    "distill run 'x={kind: lora}' a``b`c`",
    "`whole`",
]


CELL = "| head |\n| --- |\n| {} |"


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize(("write", "frame"), [(markdown, "{}"), (markdown, CELL), (code, "{}")])
def test_a_reader_of_markdown_shows_the_text_itself(write: Callable[[str], str], frame: str, text: str) -> None:
    page = Page(MarkdownIt().enable("table").render(frame.format(write(text))))
    assert "".join(page.texts).strip().removeprefix("head").strip() == " ".join(text.split())
    assert not {"em", "a", "i", "del", "strong"} & set(page.tags)


def front(card: str) -> dict[str, Any]:
    """Return the front matter of a card."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_has_front_matter_for_the_hub(tmp_path: Path) -> None:
    card = model_card(made_up_run.write(tmp_path))
    matter = front(card)
    assert matter["library_name"] == "transformers"
    assert matter["pipeline_tag"] == "text-classification"
    assert matter["base_model"] == "textattack/bert-base-uncased-SST-2"
    assert "distillation" in matter["tags"]
    metrics = {metric["name"]: metric["value"] for metric in matter["model-index"][0]["results"][0]["metrics"]}
    assert metrics["accuracy"] == pytest.approx(0.9113, abs=1e-4)
    for part in ("## Use", "## Scores", "## Latency", "## How it was made", "## Data", "## Limits"):
        assert part in card
    assert "| student | 91.1 ± 0.3 |" in card
    assert "Texts are cut after 64 tokens." in card


def test_the_card_of_a_run_without_scores_says_so(tmp_path: Path) -> None:
    made_up_run.write_record(tmp_path, {})
    card = model_card(tmp_path)
    assert "model-index" not in front(card)
    assert "It was not evaluated." in card


@pytest.mark.parametrize("teacher", ["/models/bert", "./bert", "package:some_model"])
def test_a_teacher_that_is_not_on_the_hub_is_no_base_model(tmp_path: Path, teacher: str) -> None:
    made_up_run.write_record(tmp_path, {"config": yaml.safe_dump({"teacher": {"model": teacher}})})
    assert "base_model" not in front(model_card(tmp_path))


@pytest.mark.parametrize(("kind", "tag"), [("regression", "text-classification"), ("text", "feature-extraction")])
def test_the_card_says_how_to_load_what_kind_of_model(tmp_path: Path, kind: str, tag: str) -> None:
    made_up_run.write_record(tmp_path, {"config": yaml.safe_dump({"task": {"kind": kind}})})
    card = model_card(tmp_path)
    assert front(card)["pipeline_tag"] == tag
    code = re.search(r"```python\n(.*?)```", card, flags=re.S)
    assert code is not None
    compile(code[1], "card", "exec")
