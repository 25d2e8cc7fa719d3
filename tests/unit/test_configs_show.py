"""Origins, and the resolved configuration as text."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.load import Loaded, load
from configs.origins import DEFAULT
from configs.pipeline import Pipeline
from configs.show import show
from tests.helpers.run_yaml import write


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name="base.yaml")
    write(tmp_path, "extends: base.yaml\nseed: 1\nstages:\n  student:\n    training: {learning_rate: 1e-5}\n")


def test_each_value_knows_where_it_comes_from() -> None:
    loaded = load("run.yaml", ["stages.student.objective.1.temperature=4", "repeats=2"])
    wanted = {
        "about": "base.yaml:1",
        "seed": "run.yaml:2",
        "repeats": "override: repeats=2",
        "output": "default",
        "task.kind": "default",
        "data.train.kind": "default",
        "data.train.path": "base.yaml:7",
        "stages.student.data": "base.yaml:12",
        "stages.student.training.epochs": "base.yaml:16",
        "stages.student.training.learning_rate": "run.yaml:5",
        "stages.student.training.eps": "default",
        "stages.student.objective.0.kind": "base.yaml:14",
        "stages.student.objective.1.weight": "base.yaml:15",
        "stages.student.objective.1.temperature": "override: stages.student.objective.1.temperature=4",
    }
    assert {path: str(loaded.origins[path]) for path in wanted} == wanted


def test_the_output_is_named_after_the_file() -> None:
    loaded = load("run.yaml")
    assert (loaded.name, loaded.pipeline.output) == ("run", Path("runs/run"))
    assert load("run.yaml", ["output=elsewhere"]).pipeline.output == Path("elsewhere")


def test_lines_end_with_their_origins() -> None:
    text = show(load("run.yaml", ["stages.student.data.0=validation"]))
    lines = {line.partition("  #")[0].rstrip(): line.partition("  # ")[2] for line in text.splitlines()}
    assert lines["seed: 1"] == "run.yaml:2"
    assert lines["    data: [validation]"] == "override: stages.student.data.0=validation"
    assert lines["      learning_rate: 1e-5"] == "run.yaml:5"
    assert lines["      eps: 1e-8"] == "default"
    assert lines["    objective:"] == ""
    assert lines["      - kind: task"] == "base.yaml:14"
    assert lines["  options: {}"] == "default"
    assert len({line.index("  # ") for line in text.splitlines() if "  # " in line}) == 1


def reloaded(text: str, folder: Path) -> Pipeline:
    return load(write(folder, text, "again.yaml")).pipeline


def test_what_is_shown_loads_to_the_same_run(tmp_path: Path) -> None:
    loaded = load("run.yaml", ["stages.student.objective.1.weight={start: 1, end: 0}", "machine.threads=2"])
    assert reloaded(show(loaded), tmp_path) == loaded.pipeline


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [*"!&*?|>%@`-:#,[]{}'\"\\~", "no", "true", "null", "1e-4", "007", ".nan", "a: b", "a #b", " a", "a ", "---", "<<"]
)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
FRACTION = st.floats(min_value=0, max_value=1)
SCALARS = TEXTS | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
SPAN = FRACTION.filter(lambda value: value > 0)  # a schedule begins before it ends, a weight is not 0
WEIGHT = SPAN | st.fixed_dictionaries({"start": POSITIVE, "end": POSITIVE}, optional={"finish": SPAN})
LAYERS = st.sampled_from(["uniform", "last"]) | st.dictionaries(st.integers(0, 24), st.integers(0, 24), max_size=3)
TERMS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("task")}, optional={"weight": WEIGHT}),
    st.fixed_dictionaries({"kind": st.just("logits"), "temperature": POSITIVE}, optional={"weight": WEIGHT}),
    st.fixed_dictionaries({"kind": st.just("hidden"), "layers": LAYERS}),
    st.fixed_dictionaries(
        {"kind": st.just("custom"), "factory": TEXTS, "options": st.dictionaries(TEXTS, SCALARS, max_size=3)}
    ),
)
RUNS = st.fixed_dictionaries(
    {
        "about": TEXTS,
        "task.labels": st.none() | st.lists(TEXTS, max_size=3),
        "student.options": st.dictionaries(TEXTS, st.none() | SCALARS, max_size=3),
        "data.train.label_names": st.dictionaries(TEXTS, TEXTS, max_size=3),
        "stages.student.objective": st.lists(TERMS, min_size=1, max_size=3),
        "stages.student.training.learning_rate": POSITIVE,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=RUNS)
def test_any_run_shown_loads_back(changes: dict[str, Any], tmp_path: Path) -> None:
    loaded = load(write(tmp_path))
    whole = loaded.pipeline.model_dump()
    for path, value in changes.items():
        *above, last = path.split(".")
        section = whole
        for key in above:
            section = section[key]
        section[last] = value
    pipeline = Pipeline.model_validate(whole)
    shown = show(Loaded(loaded.name, pipeline, defaultdict(lambda: DEFAULT)))
    assert reloaded(shown, tmp_path) == pipeline


def test_loading_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, time; start = time.process_time(); from pydantic import BaseModel; given = time.process_time();"
        "import configs.load; took = (time.process_time() - given) / (given - start);"
        "heavy = {'torch', 'numpy', 'transformers', 'lightning'} & set(sys.modules); print(took, *heavy)"
    )
    root, took = Path(__file__).parents[2], []
    for _ in range(3):  # the quickest says what it takes, the others what else the processor has to do
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        times, *heavy = done.stdout.split()
        assert not heavy
        took.append(float(times))
    assert min(took) < 5  # times as long as pydantic, on which all of it is built: 3 on a quiet processor
