"""The runs that come with the package, and the schema for editors."""

import json
from pathlib import Path

import pytest

from configs import presets
from configs.errors import ConfigError
from configs.load import load
from configs.schema import schema
from tests.helpers.run_yaml import RUN, problems, write

NAMES = presets.names()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands for the package's presets."""
    folder = tmp_path / "presets"
    write(folder, RUN, "_base.yaml")
    write(folder, RUN.replace("A run", "Small"), "small.yaml")
    write(folder, "extends: ../_base.yaml\nabout: Mid\nexpect: 1\n", "family/mid.yaml")
    write(folder, "about: Big\nexpect: Much\nextends: [mid.yaml, small]  # mid.yaml\nseed: 4\n", "family/big.yaml")
    monkeypatch.setattr(presets, "root", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_bases_are_not_listed(own: Path) -> None:
    assert presets.names() == ["family/big", "family/mid", "small"]
    assert presets.names(bases=True) == ["_base", "family/big", "family/mid", "small"]


def test_a_preset_says_what_it_is(own: Path) -> None:
    assert presets.describe("small") == ("Small.", "A score.")
    with pytest.raises(ConfigError, match=r"^configs/presets/family/mid\.yaml: a preset says `about` and `expect` in"):
        presets.describe("family/mid")


def test_unknown_presets_are_named_with_the_known(own: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        presets.text("smal")
    choices = "did you mean `small`? Choices: family/big, family/mid, small"
    assert caught.value.problems == (f"smal: no preset of this name; {choices}",)
    assert problems("smal") == [f"smal: no preset or file of this name; {choices}"]
    assert problems("../presets/small")[0].startswith("../presets/small: no preset or file of this name")


def test_presets_extend_presets_by_path_or_name(own: Path) -> None:
    loaded = load("family/big")
    assert (loaded.pipeline.seed, loaded.pipeline.about, loaded.pipeline.output) == (4, "Big", Path("runs/family-big"))
    assert str(loaded.origins["seed"]) == "configs/presets/family/big.yaml:4"
    assert str(loaded.origins["stages.student.data"]) == "configs/presets/small.yaml:12"


def test_a_users_file_extends_a_preset(own: Path) -> None:
    write(Path(), "extends: family/big\nseed: 5\n")
    assert load("run.yaml").pipeline.seed == 5


def test_a_copy_loads_from_anywhere_and_is_never_written_over(own: Path) -> None:
    file = presets.copy("family/big", Path("new/mine.yaml"))
    assert load(file).pipeline == load("family/big", ["output=runs/mine"]).pipeline
    lines = file.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=distill.schema.json"
    assert lines[3] == "extends: [family/mid, small]  # mid.yaml"
    assert json.loads((file.parent / "distill.schema.json").read_text()) == schema()
    with pytest.raises(ConfigError) as caught:
        presets.copy("small", file)
    assert caught.value.problems == ("new/mine.yaml: exists already; name another file, or remove it first",)
    assert file.read_text().splitlines() == lines


def test_a_copy_into_a_folder_keeps_its_name(own: Path) -> None:
    assert presets.copy("family/big", Path()) == Path("big.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_every_real_preset_loads_describes_itself_and_copies(name: str, tmp_path: Path) -> None:
    about, expect = presets.describe(name)
    loaded = load(name)
    assert (loaded.pipeline.about, loaded.pipeline.expect) == (about, expect)
    again = load(presets.copy(name, tmp_path / "copy.yaml"), [f"output={loaded.pipeline.output}"])
    assert again.pipeline == loaded.pipeline


def test_there_are_real_presets() -> None:
    assert "demo" in NAMES


def test_the_schema_describes_and_closes_every_section() -> None:
    whole = schema()
    assert whole["additionalProperties"] is False
    assert whole["properties"]["about"]["description"] == "What the run does, in a sentence."
    assert whole["$defs"]["Training"]["properties"]["weight_decay"]["description"] == "Not applied to biases and norms."
    assert "extends" in whole["properties"]
    assert whole["else"] == {"required": ["about", "expect", "teacher", "student", "data", "stages"]}
    assert all(section["additionalProperties"] is False for section in whole["$defs"].values())
    assert all(part.get("description") for part in whole["$defs"].values())


def test_the_schema_lets_a_file_leave_out_what_it_inherits() -> None:
    whole = schema()
    assert all("required" not in section and "oneOf" not in section for section in whole["$defs"].values())
    (stage,) = whole["properties"]["stages"]["patternProperties"].values()
    assert stage["anyOf"][-1] == {"type": "null"}
    assert {"$ref": "#/$defs/TrainStage"} in stage["anyOf"]
