"""Words and marks in any script, and loops of them against plain ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.text_units import is_empty, longest_loop, tokens, top_phrase, units_per_word, words

units = st.lists(st.sampled_from("abc"), max_size=20)


@pytest.mark.parametrize(
    ("text", "bare", "marked"),
    [
        ("Don't  GO!", "don t go", "don ' t go !"),
        ("Straße, №\u00a05 …", "strasse no 5", "strasse , № 5 …"),
        ("雪。Snow", "雪 snow", "雪 。 snow"),
        ("กา wait", "ก า wait", "ก า wait"),
        ("ﬁne e\u0301té", "fine été", "fine été"),
        ("हिन्दी", "हिन्दी", "हिन्दी"),
        (" \u200b", "", "\u200b"),
    ],
)
def test_words_and_marks(text, bare, marked):
    assert " ".join(words(text)) == bare
    assert " ".join(tokens(text)) == marked


@given(st.text(alphabet="aB雪ก é,.…!", max_size=30))
def test_tokens_without_their_marks_are_the_words(text):
    assert tuple(unit for unit in tokens(text) if unit.isalnum()) == words(text)
    assert is_empty(text) == (tokens(text) == ())


@given(units, st.integers(1, 6))
def test_a_loop_is_that_of_plain_loops(line, longest):
    def turns(start, period):
        times = 1
        phrase = line[start : start + period]
        while line[start + period * times : start + period * (times + 1)] == phrase:
            times += 1
        return times

    places = [(start, period) for period in range(1, longest + 1) for start in range(len(line) - period + 1)]
    assert longest_loop(line, longest) == max((turns(*place) for place in places), default=1)


@given(units, st.integers(1, 4))
def test_a_phrase_is_counted_wherever_it_stands(line, length):
    grams = [tuple(line[start : start + length]) for start in range(len(line) - length + 1)]
    assert top_phrase(line, length) == max((grams.count(gram) for gram in grams), default=0)


@pytest.mark.parametrize(("text", "size"), [("", 1), ("a b 雪", 1), ("雪 b 雪", 2), ("ラーメン", 2), ("กาก", 4)])
def test_most_units_decide_how_many_make_a_word(text, size):
    assert units_per_word(words(text)) == size
