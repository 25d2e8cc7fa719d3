"""Which teacher layer each student layer learns from."""

import pytest

from distill.errors import UnmetNeeds
from distill.layer_map import RULES, describe, resolve


@pytest.mark.parametrize(
    ("rule", "student", "teacher", "pairs"),
    [
        ("uniform", 4, 12, {1: 3, 2: 6, 3: 9, 4: 12}),
        ("uniform", 6, 12, {1: 2, 2: 4, 3: 6, 4: 8, 5: 10, 6: 12}),
        ("uniform", 5, 12, {1: 2, 2: 5, 3: 7, 4: 10, 5: 12}),
        ("uniform", 2, 5, {1: 3, 2: 5}),
        ("uniform", 3, 3, {1: 1, 2: 2, 3: 3}),
        ("last", 4, 12, {4: 12}),
        ("last", 12, 4, {12: 4}),
        ("top", 4, 12, {1: 9, 2: 10, 3: 11, 4: 12}),
        ("bottom", 4, 12, {1: 1, 2: 2, 3: 3, 4: 4}),
        ("skip", 6, 12, {1: 2, 2: 4, 3: 6, 4: 8, 5: 10}),
        ("skip", 3, 12, {1: 4, 2: 8}),
        ("skip", 5, 12, {1: 2, 2: 4, 3: 6, 4: 8}),
    ],
)
def test_rules(rule, student, teacher, pairs):
    assert resolve(rule, student, teacher) == pairs


@pytest.mark.parametrize("teacher", range(1, 26))
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_climbs_within_both_models(rule, teacher):
    for student in range(2 if rule == "skip" else 1, teacher + 1):
        pairs = resolve(rule, student, teacher)
        assert list(pairs) == sorted(pairs) and set(pairs) <= set(range(1, student + 1))
        taught = list(pairs.values())
        assert taught == sorted(set(taught)) and set(taught) <= set(range(1, teacher + 1))
        assert rule in ("bottom", "skip") or pairs[student] == teacher


def test_a_mapping_is_taken_as_it_is():
    assert resolve({2: 7, 1: 7}, 2, 12) == {1: 7, 2: 7}
    assert list(resolve({2: 7, 0: 0}, 2, 12, embeddings=True)) == [0, 2]


@pytest.mark.parametrize("rule", ["uniform", "top", "bottom", "skip"])
def test_a_student_deeper_than_its_teacher_is_refused(rule):
    with pytest.raises(UnmetNeeds) as caught:
        resolve(rule, 6, 4, where="objective[1] (hidden): layers")
    assert str(caught.value) == (
        f"objective[1] (hidden): layers: `{rule}` pairs every student layer with its own teacher layer, but the "
        "student has 6 layers, the teacher 4; use `last`, or a mapping {student layer: teacher layer}"
    )


@pytest.mark.parametrize(
    ("pairs", "embeddings", "message"),
    [
        (
            {1: 3, 5: 12},
            False,
            "layers: student layer 5 does not exist: the student has 4 layers, the teacher 12; layers count from 1",
        ),
        (
            {1: 13},
            True,
            "layers: teacher layer 13 does not exist: the student has 4 layers, the teacher 12; "
            "layers count from 0 (embeddings)",
        ),
        (
            {0: 0},
            False,
            "layers: student layer 0 does not exist: the student has 4 layers, the teacher 12; layers count from 1",
        ),
        ({}, False, "layers: the map of layers is empty; name at least one pair {student layer: teacher layer}"),
    ],
)
def test_layers_that_do_not_exist_are_named(pairs, embeddings, message):
    with pytest.raises(UnmetNeeds) as caught:
        resolve(pairs, 4, 12, embeddings=embeddings)
    assert str(caught.value) == message


def test_skip_needs_a_layer_besides_the_last():
    with pytest.raises(UnmetNeeds, match="`skip` leaves out the last layer, and nothing is left"):
        resolve("skip", 1, 12)


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(UnmetNeeds) as caught:
        resolve("unifrom", 4, 12)
    assert str(caught.value) == (
        "layers: `unifrom` is no rule for pairing layers; did you mean `uniform`? "
        "Choices: bottom, last, skip, top, uniform"
    )


def test_a_map_reads_as_a_line():
    assert describe(resolve("uniform", 4, 12)) == "1→3 2→6 3→9 4→12"
