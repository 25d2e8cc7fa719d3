"""Read a run's configuration: YAML, what it extends, overrides; checked as a whole, all problems at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from configs.checks import check, parts_of
from configs.data import Source, Task
from configs.documents import Chain, Document, find
from configs.errors import ConfigError
from configs.merge import complete, override
from configs.origins import DEFAULT, Fault, Origin, Problem, dotted
from configs.pipeline import Pipeline
from configs.problems import explain
from configs.references import Parts
from configs.shape import shape_of
from configs.stages import Stage
from configs.students import Student
from configs.teachers import Teacher
from configs.training import Machine
from configs.tree import Node, node_of


@dataclass(frozen=True, slots=True)
class Loaded:
    """A run's configuration, and where each of its values comes from."""

    name: str
    """Name of the preset, or of the file without its ending."""
    pipeline: Pipeline
    origins: Mapping[str, Origin]
    """By path, as in `stages.train.training.epochs`; sections, lists and single values, defaults included."""


def load(source: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Return the run that a preset (`tinybert/sst2`) or a YAML file describes, with overrides `a.b=c` done to it.

    Reads strictly: see `configs.strict_yaml`. `extends` names presets or files underneath, see `configs.merge`.
    `output` defaults to `runs/<name>`. Raises `ConfigError` with every problem found, one a line.
    """
    problems: list[Problem] = []
    try:
        document = find(source)
        tree = _assemble(document, overrides, problems)
    except Fault as fault:
        raise ConfigError(_lines([*problems, fault.problem])) from None
    pipeline = _validate(tree, problems)
    if pipeline is None or problems:
        raise ConfigError(_lines(problems))
    return Loaded(document.name, pipeline, _origins(tree, pipeline))


def changed(pipeline: Pipeline, overrides: Sequence[str]) -> Pipeline:
    """Return a run with overrides `a.b=c` done to it. Raise `ConfigError` where they are refused."""
    problems: list[Problem] = []
    tree = node_of(pipeline.model_dump(mode="json", exclude_unset=True), DEFAULT)
    found = _validate(complete(_overridden(tree, overrides, problems), _PIPELINE), problems)
    if found is None or problems:
        raise ConfigError(_lines(problems))
    return found


_PIPELINE = shape_of(Pipeline)


def _assemble(document: Document, overrides: Sequence[str], problems: list[Problem]) -> Node:
    tree = _overridden(Chain(_PIPELINE, problems).resolve(document), overrides, problems)
    output = Node(f"runs/{document.name.replace('/', '-')}", DEFAULT)
    return _with_implied(complete(Node({"output": output, **tree.table}, tree.origin), _PIPELINE))


def _overridden(tree: Node, overrides: Sequence[str], problems: list[Problem]) -> Node:
    """Return the tree with what can be done of the overrides; the rest is added to `problems`."""
    for text in overrides:
        try:
            tree = override(tree, text, _PIPELINE)
        except Fault as fault:
            problems.append(fault.problem)
    return tree


def _with_implied(tree: Node) -> Node:
    """Return the tree with `teacher: none` in stages that train the teacher and say nothing of one."""
    stages = tree.table.get("stages")
    if stages is None or not stages.table:
        return tree
    none = Node("none", DEFAULT)
    implied = {
        name: Node({"teacher": none, **stage.table}, stage.origin) if _trains_teacher(stage) else stage
        for name, stage in stages.table.items()
    }
    return Node({**tree.table, "stages": Node(implied, stages.origin)}, tree.origin)


def _trains_teacher(stage: Node) -> bool:
    trains = stage.table.get("trains")
    return stage.kind == "train" and trains is not None and trains.value == "teacher"


def _validate(tree: Node, problems: list[Problem]) -> Pipeline | None:
    """Return the pipeline; where parts are wrong, add to `problems` and still check how the others fit together."""
    pipeline: Pipeline | None = None
    try:
        pipeline = Pipeline.model_validate_json(json.dumps(tree.plain()), strict=True)
        parts = parts_of(pipeline)
    except ValidationError as error:
        problems += explain(error, tree, _PIPELINE)
        parts = _sound(tree)
    problems += [Problem(tree.written(path), path, what) for path, what in check(parts)]
    return pipeline


def _sound(tree: Node) -> Parts:
    """Return the parts of a wrong configuration that are right in themselves; none if one of the tables is no table."""
    task, data, stages = map(tree.table.get, ("task", "data", "stages"))
    teacher, student, machine = map(tree.table.get, ("teacher", "student", "machine"))
    if data is None or stages is None or not isinstance(data.value, dict):
        return Parts(None, {}, {})
    return Parts(
        _part(Task, task) if task else Task(),
        {name: _part(Source, node) for name, node in data.table.items()},
        {name: _part(Stage, node) for name, node in stages.table.items()},
        _part(Teacher, teacher) if teacher else None,
        _part(Student, student) if student else None,
        _part(Machine, machine) if machine else None,
    )


def _part(section: Any, node: Node) -> Any:
    try:
        return TypeAdapter(section).validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError:
        return None


def _origins(tree: Node, pipeline: Pipeline) -> dict[str, Origin]:
    whole = node_of(pipeline.model_dump(mode="json"), DEFAULT)
    written = {path: node.origin for path, node in tree.walk()}
    return {dotted(path): written.get(path, DEFAULT) for path, _ in whole.walk() if path}


def _lines(problems: list[Problem]) -> list[str]:
    return list(dict.fromkeys(str(problem) for problem in sorted(problems, key=lambda problem: problem.rank)))
