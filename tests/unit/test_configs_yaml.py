"""The strict YAML reader."""

from pathlib import Path

import pytest

from configs.origins import Fault, Origin, Problem
from configs.strict_yaml import MAX_DEPTH, read, scalar
from tests.helpers.run_yaml import problems, write


def parsed(text: str) -> tuple[object, list[str]]:
    found: list[Problem] = []
    node = read(text, lambda line: Origin("file", "x.yaml", line), found)
    return node.plain() if node else None, [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        *[(word, None) for word in ("null", "~", "")],
        *[
            ("1e-4", 1e-4),
            ("1e-5", 1e-5),
            ("5E3", 5000.0),
            ("-1.5", -1.5),
            (".5", 0.5),
            ("2.", 2.0),
            ("1.5e+3", 1500.0),
        ],
        *[("0", 0), ("12", 12), ("-3", -3), ("+4", 4)],
        *[(text, text) for text in ("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE")],
        *[(text, text) for text in ("007", "0x1f", "0o7", "1_000", "1:30", "2020-01-01", ".nan", ".inf", "1e999")],
        *[(text, text) for text in (".", "e5", "1e", "-", "1.2.3", "1" * 19, "٣")],
    ],
)
def test_unquoted_text_means_what_it_says(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_quoted_text_stays_text() -> None:
    assert parsed("""{a: "1", b: 'true', c: "null", d: 1}""") == ({"a": "1", "b": "true", "c": "null", "d": 1}, [])


def test_keys_are_their_text() -> None:
    assert parsed("{1: a, 1.0: b, true: c, null: d}") == ({"1": "a", "1.0": "b", "true": "c", "null": "d"}, [])


def test_duplicate_keys_are_problems_and_name_both_lines() -> None:
    _, found = parsed("a:\n  b: 1\n  c: 2\n  b: 3\nd: 1\nd: 2\n")
    assert found == ["x.yaml:4: a.b: given twice, first at x.yaml:2", "x.yaml:6: d: given twice, first at x.yaml:5"]


def test_the_same_number_quoted_and_not_is_one_key() -> None:
    assert parsed("{1: a, '1': b}")[1] == ["x.yaml:1: 1: given twice, first at x.yaml:1"]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!str", "!!binary", "!own"])
def test_tags_are_problems(tag: str) -> None:
    _, found = parsed(f"a:\n- {tag} x")
    assert found == [f"x.yaml:2: a.0: tag `{tag}` is not read here; put text in quotes and leave tags out"]


def test_aliases_are_read_and_merge_keys_are_not() -> None:
    assert parsed("a: &a {x: 1}\nb: *a\nc: [*a, *a]") == ({"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}] * 2}, [])
    value, found = parsed("a: &a {x: 1}\nb:\n  <<: *a\n  y: 2")
    assert value == {"a": {"x": 1}, "b": {"y": 2}}
    assert found == ["x.yaml:3: b.<<: merge keys are not read here; use `extends`, or write the keys out"]


def test_every_value_knows_its_line() -> None:
    node = read("a: 1\nb:\n  c: [x,\n    y]\n  d:\n    - e: 2\n", lambda line: Origin("file", "x.yaml", line), [])
    assert node is not None
    lines = {".".join(path): below.origin.line for path, below in node.walk()}
    assert lines == {"": 1, "a": 1, "b": 2, "b.c": 3, "b.c.0": 3, "b.c.1": 4, "b.d": 5, "b.d.0": 6, "b.d.0.e": 6}


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{below}'] * 9)}]\n" for below, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", "x.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a:\n\t- b", "x.yaml:2: not valid YAML: found character '\\t' that cannot start any token"),
        ("a: b: c", "x.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: 1\nb: \x00", "x.yaml:2: not valid YAML: character 0x00 is not allowed"),
        ("a: 1\n---\nb: 2", "x.yaml:2: a second document begins here; write one in a file"),
        ("a: *b", "x.yaml:1: a: alias `*b` has no anchor `&b` before it"),
        ("a: &a [*a]", "x.yaml:1: a.0: alias `*a` has no anchor `&a` before it"),
        ("? [a]\n: 1", "x.yaml:1: a key must be plain text"),
        ('a: "\\ud800"', "x.yaml:1: a: text with half a character (a lone surrogate such as \\ud800)"),
        (BOMB, "x.yaml:5: e.4: more than 50000 values, aliases written out"),
        ("a: " + "[" * 200_000, "x.yaml:1: a.0.0: nested more than 24 deep"),
    ],
)
def test_text_that_cannot_be_read_on_is_one_problem(text: str, message: str) -> None:
    with pytest.raises(Fault) as caught:
        parsed(text)
    assert str(caught.value.problem) == message


def test_depth_up_to_the_limit_is_read() -> None:
    assert parsed("[" * MAX_DEPTH + "]" * MAX_DEPTH)[1] == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty; `distill list` names presets to begin with"),
        (b"# only a comment\n", "empty; `distill list` names presets to begin with"),
        ("about: Größe".encode("latin-1"), "not UTF-8: byte 0xf6 at 9; save the file as UTF-8"),
        ("about: x".encode("utf-16"), "not UTF-8: byte 0xff at 0; save the file as UTF-8"),
        (b"about: " + b"x" * 1_000_000, "larger than 1 MB; not a configuration"),
    ],
)
def test_files_that_are_no_configuration(
    data: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_bytes(data)
    assert problems("run.yaml") == [f"run.yaml: {what}"]


@pytest.mark.parametrize("text", ["- a\n", "a\n"])
def test_the_top_is_a_table(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text)
    assert problems("run.yaml") == ["run.yaml:1: the top must be `key: value` lines, not a list or a single value"]


def test_places_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    write(tmp_path)
    assert problems("folder.yaml") == ["folder.yaml: a folder, not a YAML file"]
    assert problems("rn.yaml") == ["rn.yaml: no such file; did you mean `run.yaml`? Choices: folder.yaml, run.yaml"]
    assert problems(Path("elsewhere/run.yaml")) == ["elsewhere/run.yaml: no such file"]
