"""Why texts are left out: hand-written ones that must and must not be, and plain loops over every place and pair."""

import math
import time
import unicodedata
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from configs.filters import Filters, Repetition, Script
from distill.errors import DataError
from teachers.text.filters import REASONS, Candidate, counts, reasons
from teachers.text.measures import likeness, most_frequent, script_share, width

OFF = Filters(length_ratio=None, repetition=None, copies=None, duplicates=None, unended=False)
GOOD = Candidate("Zwei Hunde laufen durch den Schnee.", "Two dogs are running through the snow.", -0.4, True, -0.7)
DETACHED = "The staff were very friendly and helpful."


def only(**chosen):
    return OFF.model_copy(update=chosen)


def why(source, text, filters):
    return reasons([Candidate(source, text, -1.0, True)], filters)[0]


@pytest.mark.parametrize(
    ("source", "text", "reason"),
    [
        ("Zwei Hunde laufen durch den Schnee.", "Dogs.", "length"),
        ("Ja.", "Yes, I would very much like to come along with you.", "length"),
        ("两只狗在雪地里奔跑。", "Dogs.", "length"),
        ("Ich sehe ein Haus.", "I see a a a a house.", "repetition"),
        ("Er kam spät nach Hause.", "He came home, came home, came home, came home.", "repetition"),
        (
            "Der Mann mit dem Hut steht da.",
            "The man with the hat, the man with the hat, the man with the hat.",
            "repetition",
        ),
        ("Wie schade!", "What a pity!!!!!!!!!!!!!!!", "repetition"),
        ("Das ist aber schade!", "What a pity ! ! ! ! ! ! ! ! ! !", "repetition"),
        ("Das ist aber sehr schade!", "What a pity !  ! !   ! !! ! !  !!! !", "repetition"),
        ("Er sagt immer das Gleiche.", "He says rabarabarabarabarabarabarabarabaraba.", "repetition"),
        ("Er lacht laut.", "He laughs hahahahahahahahahahaha.", "repetition"),
        ("He likes to read.", "他喜欢读书他喜欢读书他喜欢读书他喜欢读书", "repetition"),
        (
            "We walk in the garden every day.",
            "เราเดินเล่นในสวน เราเดินเล่นในสวน เราเดินเล่นในสวน เราเดินเล่นในสวน",
            "repetition",
        ),
        ("Good morning", "Good morning.", "copy"),
        ("Go to bed!", "go to bed", "copy"),
        ("Two dogs are running through the snow.", "Two dogs are running through the snow!", "copy"),
        ("Two dogs are running through the deep snow.", "Two dogs were running through the deep snow.", "copy"),
        ("Tom gave Mary Milk.", "Tom gave Mary Milk.", "copy"),
        ("Stop the car, it is on fire", "STOP THE CAR, IT IS ON FIRE", "copy"),
        ("今天天气很好我们去公园散步吧", "今天天气很好，我们去公园散步吧。", "copy"),
    ],
)
def test_a_faulty_text_is_marked_with_its_one_reason(source, text, reason):
    assert why(source, text, Filters()) == (reason,)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Paris", "Paris"),
        ("2019", "2019"),
        ("New York", "New York"),
        ("Vincent van Gogh", "Vincent van Gogh"),
        ("Lord of the Rings", "Lord of the Rings"),
        ("Universität", "Universität"),
        ("kindergarten", "Kindergarten"),
        ("Kindergarten", "kindergarten"),
        ("10 000 000 000 000 000 000", "10 000 000 000 000 000 000"),
        ("Das ist sehr, sehr gut.", "That is very, very good."),
        ("Nein, nein, nein!", "No, no, no!"),
        ("Nein, nein, nein, nein, nein, nein!", "No, no, no, no, no, no, no!"),
        ("Warte …", "Wait..."),
        ("Name: ______________________", "Nom: ______________________"),
        ("Äpfel, Birnen, Kirschen, Nüsse", "Apples, pears, cherries, nuts"),
        ("1. lesen 2. schreiben 3. rechnen 4. singen", "1. read 2. write 3. calculate 4. sing"),
        ("Wenn Fliegen hinter Fliegen fliegen", "When flies fly behind flies, flies fly after flies"),
        ("Bitte.", "You are welcome."),
        ("Two dogs are running through the snow.", "两只狗在雪地里奔跑。"),
        ("Ha ha ha!", "哈哈哈哈！"),
        ("Ha ha ha, I laughed so much, so funny, I laughed!", "哈哈哈哈，笑死我了，太好笑，我笑了笑"),
        ("The People's Republic of China and the people of the Republic", "中华人民共和国和中华民国人民"),
        ("Development needs developers who develop.", "การพัฒนาต้องมีนักพัฒนา และการพัฒนาคือการพัฒนาคน"),
        (GOOD.source, GOOD.text),
    ],
)
def test_a_good_text_is_not_marked(source, text):
    assert why(source, text, Filters()) == ()


def test_a_text_may_repeat_what_its_source_repeats():
    loop = "Row, row, row, row, row your boat."
    assert why("Fahr dein Boot.", loop, Filters()) == ("repetition",)
    assert why("Rudre, rudre, rudre, rudre dein Boot.", loop, Filters()) == ()
    chorus = "all you need is love " * 4
    assert why("Liebe ist alles, was du brauchst. " * 3, chorus, only(repetition=Repetition())) == ()
    assert why("Liebe ist alles, was du brauchst. " * 2, chorus, only(repetition=Repetition())) == ("repetition",)


def test_loops_of_words_are_found_by_themselves_in_scripts_without_spaces_too():
    rule = only(repetition=Repetition(more=99))
    assert why("Er liest gern.", "他喜欢读书" * 7, rule) == ("repetition",)
    assert why("Er liest gern.", "他喜欢读书" * 6, rule) == ()


def test_what_a_word_is():
    assert most_frequent("हिन्दी में हिन्दी में", 4) == 1, "marks belong to words"
    assert most_frequent("a b c d 雪 a b c d", 4) == 2, "most units are words"
    assert most_frequent("X他喜欢他不X他喜", 2) == 1, "most units are characters, two to a word"
    assert most_frequent("ja ja", 4) == 1


def plain_repetition(source: str, text: str, rule: Repetition) -> bool:
    """Look at every phrase at every place."""

    def times(words, phrase):
        return sum(words[at : at + len(phrase)] == phrase for at in range(len(words)))

    def top(words):
        places = range(len(words) - rule.ngram + 1)
        return max((times(words, words[at : at + rule.ngram]) for at in places), default=1)

    def turns(units, longest, limit):
        lengths = range(1, longest + 1)
        return any(
            units[at : at + n * (limit + 1)] == units[at : at + n] * (limit + 1) != units[:0]
            for n in lengths
            for at in range(len(units) - n * (limit + 1) + 1)
        )

    def loops(words):
        return turns(words, rule.ngram - 1, rule.in_row) or turns("".join(words), 4, rule.characters_in_row)

    theirs, ours = source.split(), text.split()
    return top(ours) - top(theirs) >= rule.more or (loops(ours) and not loops(theirs))


few_words = st.lists(st.sampled_from(["ja", "nein", "so", "o"]), max_size=24).map(" ".join)
rules = st.builds(
    Repetition,
    ngram=st.integers(2, 4),
    more=st.integers(1, 3),
    in_row=st.integers(1, 4),
    characters_in_row=st.integers(2, 9),
)


@given(few_words, few_words.filter(bool), rules)
@example("", "o o o o", Repetition())
def test_repetition_equals_the_plain_loops(source, text, rule):
    assert (why(source, text, only(repetition=rule)) == ("repetition",)) == plain_repetition(source, text, rule)


@given(st.lists(st.text("abcdefgh", min_size=1), min_size=1, max_size=9), st.integers(0, 5), few_words)
def test_no_loop_of_whatever_length_goes_unseen(phrase, more, start):
    text = " ".join([start] + phrase * (4 + more))
    assert why("ein kurzer Satz", text, only(repetition=Repetition())) == ("repetition",)


def test_the_bounds_of_the_length_ratio_belong_to_it():
    filters = only(length_ratio=(0.5, 2.5), shortest_checked=10)
    marked = [length for length in range(1, 40) if why("abcdefghij", "x" * length, filters)]
    assert marked == [*range(1, 5), *range(26, 40)]
    assert why("abcdefghi", "xx", filters) == (), "both are shorter than what is checked"
    assert why("abc", "xyz" * 4, filters) == ("length",)


def test_likeness_by_the_formula():
    assert likeness("abcd", "abce") == 2 * 1 / (2 + 2)
    assert likeness("so", "so") == 1.0 and likeness("so", "no") == 0.0 and likeness("", "") == 1.0
    nearly = "Two dogs were running through the deep snow."
    assert why("Two dogs are running through the deep snow.", nearly, only(copies=1.0)) == ()
    assert likeness("an abc", "an abd") == 0.75
    assert why("an abc", "an abd", only(copies=0.75)) == ("copy",)
    assert why("an abc", "an abd", only(copies=0.76)) == ()


words = st.sampled_from(["aa", "AA!", "bb", "Bb.", "aa bb", "...", "?!"])


@given(st.lists(st.tuples(words, words), max_size=25), st.integers(1, 3))
def test_duplicates_equal_the_plain_loops_over_all_pairs(pairs, limit):
    def bare(text):
        return "".join(filter(lambda one: one.isalpha() or one == " ", text.lower())) or text

    expected = [
        ("duplicate",) if len({bare(s) for s, t in pairs if bare(t) == bare(text)}) > limit else () for _, text in pairs
    ]
    rows = [Candidate(source, text, None, True) for source, text in pairs]
    assert reasons(rows, only(duplicates=limit, shortest_checked=0)) == expected


def test_all_rows_of_a_text_for_too_many_sources_are_marked_the_best_scored_too():
    rows = [Candidate(f"Satz Nummer {number}", DETACHED, -float(number), True) for number in range(4)]
    again = replace(rows[0], source="satz nummer 0!")
    assert reasons([*rows, GOOD], only(duplicates=3)) == [("duplicate",)] * 4 + [()]
    assert reasons([*rows[:3], again], only(duplicates=3)) == [()] * 4, "one source, written otherwise"
    short = [replace(row, text="Thank you.") for row in rows]
    assert reasons(short, only(duplicates=3)) == [()] * 4


@pytest.mark.parametrize(
    ("text", "scripts", "share"),
    [
        ("Die Firma IBM", ("Latin",), 1.0),
        ("Он купил iPhone", ("Cyrillic",), 7 / 13),
        ("日本語のテキスト", ("Han", "Hiragana", "Katakana"), 1.0),
        ("日本語のテキスト", ("Han",), 3 / 8),
        ("हिन्दी में लिखा", ("Devanagari",), 1.0),
        ("Καλημέρα", ("Latin",), 0.0),
        ("Ｆｕｌｌ № ２", ("Latin",), 1.0),
        ("ラーメン", ("Katakana",), 1.0),
        ("Да go", ("Cyrillic",), 0.5),
        ("2019 …", ("Greek",), 1.0),
    ],
)
def test_the_share_of_the_letters_that_are_of_the_scripts(text, scripts, share):
    assert script_share(text, frozenset(scripts)) == pytest.approx(share)
    assert why("Quelle", text, only(scripts=scripts, shortest_checked=0)) == (("script",) if share < 0.5 else ())


def test_a_short_name_in_other_letters_is_no_fault():
    assert why("Microsoft", "Microsoft", only(scripts=("Cyrillic",))) == ()
    assert why("Собаки бегут по снегу.", GOOD.text, only(scripts=("Cyrillic",))) == ("script",)


def test_every_script_one_can_ask_for_has_letters():
    letters = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)).startswith("L")]
    for script in get_args(Script):
        assert any(script_share(letter, frozenset({script})) for letter in letters), script


@pytest.mark.parametrize(
    ("scores", "worst", "marked"),
    [
        ([-1.0, -4.0, -2.0, -3.0], 0.5, [1, 3]),
        ([-1.0, -4.0, -2.0, -3.0], 0.49, [1]),
        ([-1.0, -4.0, -4.0, -3.0], 0.25, []),
        ([-1.0, -4.0, -4.0, -3.0], 0.5, [1, 2]),
        ([-1.0, -4.0, -4.0, -4.0], 0.5, []),
        ([-2.0, -2.0], 0.9, []),
        ([-1.0, -9.0, -1.0], 0.1, []),
        ([-1.0], 0.99, []),
        ([-1.0, -4.0], 0.0, []),
        ([None, -4.0, None, -3.0], 0.5, [1]),
    ],
)
def test_the_worst_are_at_most_that_part_and_equals_stay_together(scores, worst, marked):
    rows = [replace(GOOD, reverse=score) for score in scores]
    found = reasons(rows, only(worst=worst))
    assert [place for place, names in enumerate(found) if names] == marked


@pytest.mark.parametrize(("worst", "count"), [(0.29, 29), (0.57, 57), (0.07, 7), (0.1, 10), (0.999, 99), (1e-5, 0)])
def test_the_part_is_the_one_written_not_its_nearest_binary_fraction(worst, count):
    rows = [replace(GOOD, reverse=-float(place)) for place in range(100)]
    assert counts(reasons(rows, only(worst=worst))) == ({"worst": count} if count else {})


def test_the_worst_cannot_be_found_without_a_score():
    with pytest.raises(DataError) as caught:
        reasons([replace(GOOD, reverse=None), replace(GOOD, reverse=math.nan)], only(worst=0.05))
    assert str(caught.value) == "filters.worst: no row has a reverse model's score to find the worst 0.05 by"
    assert reasons([], only(worst=0.05)) == []


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_marked_whatever_is_off_and_is_not_among_the_worst(score):
    assert reasons([replace(GOOD, score=score)], OFF) == [("no number",)]
    assert reasons([replace(GOOD, reverse=score), GOOD], only(worst=0.9)) == [("no number",), ()]
    assert reasons([replace(GOOD, score=None, reverse=None)], OFF) == [()]


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "\u00a0\u200e\x00"])
def test_an_empty_text_is_marked_and_judged_no_further_as_a_text(text):
    rows = [replace(GOOD, source=f"{GOOD.source} {place}", text=text, ended=False) for place in range(5)]
    assert reasons(rows, Filters(duplicates=1, scripts=("Latin",))) == [("empty", "unended")] * 5
    assert reasons(rows, OFF) == [("empty",)] * 5


def test_all_reasons_are_told_in_one_order_and_counted():
    loop = "so it goes on and " * 9
    bad = Candidate("so es geht", loop, math.nan, False, -9.0)
    rows = [bad, replace(bad, source="so it goes on and on and"), GOOD, GOOD]
    found = reasons(rows, Filters(duplicates=1, scripts=("Greek",), worst=0.5, copies=0.8))
    assert found == [
        ("no number", "unended", "length", "repetition", "duplicate", "script", "worst"),
        ("no number", "unended", "length", "repetition", "copy", "duplicate", "script", "worst"),
        ("script",),
        ("script",),
    ]
    assert all(sorted(names, key=REASONS.index) == list(names) for names in found)
    assert list(counts(found).items()) == [
        ("no number", 2),
        ("unended", 2),
        ("length", 2),
        ("repetition", 2),
        ("copy", 1),
        ("duplicate", 2),
        ("script", 4),
        ("worst", 2),
    ]
    assert reasons([replace(one, score=-1.0) for one in rows], OFF) == [()] * 4
    assert counts([]) == {} == counts([(), ()])


texts = st.sampled_from(["", DETACHED, GOOD.text, GOOD.source, "no no no no no", "Paris"])
numbers = st.none() | st.sampled_from([-1.0, -2.0, -3.0, math.nan])
candidates = st.builds(Candidate, texts, texts, numbers, st.booleans(), numbers)


@given(st.data(), st.lists(candidates, max_size=12))
def test_the_order_of_the_rows_changes_nothing(data, rows):
    rows.append(GOOD)
    filters = Filters(duplicates=2, worst=0.4, shortest_checked=5)
    order = data.draw(st.permutations(range(len(rows))))
    found = reasons(rows, filters)
    assert reasons([rows[place] for place in order], filters) == [found[place] for place in order]


def test_the_width_counts_wide_characters_twice():
    assert (width("Schnee"), width("Äpfel"), width("雪地"), width("ﾊﾛｰ"), width("Ａ")) == (6, 5, 4, 3, 2)


@pytest.mark.parametrize("unit", ["a", "ab ", "sehr gut und ", "雪", "abcdefghi" * 9 + " ", "! "])
def test_time_is_linear_in_the_length_of_a_text(unit):
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    assert "repetition" in why("Ein Satz.", text, Filters(scripts=("Latin",)))
    assert time.process_time() - started < 5.0, "a quadratic loop over 200,000 characters takes minutes"


@pytest.mark.parametrize(
    ("section", "wrong", "message"),
    [
        (
            Filters,
            {"length_ratio": [2.5, 0.4]},
            "`length_ratio` goes from the least to the greatest, not from 2.5 to 0.4",
        ),
        (Filters, {"length_ratio": [1.0, 1.0]}, "not from 1 to 1"),
        (Filters, {"length_ratio": [0.0, 2.0]}, "greater than 0"),
        (Filters, {"length_ratio": [0.5, math.inf]}, "finite number"),
        (Filters, {"length_ratio": [0.5]}, "Field required"),
        (Filters, {"shortest_checked": -1}, "greater than or equal to 0"),
        (Filters, {"copies": 1.01}, "less than or equal to 1"),
        (Filters, {"copies": 0.0}, "greater than 0"),
        (Filters, {"duplicates": 0}, "greater than 0"),
        (Filters, {"scripts": []}, "at least 1 item"),
        (Filters, {"scripts": ["Klingon"]}, "Input should be 'Arabic', 'Armenian'"),
        (Filters, {"script_share": 0.0}, "greater than 0"),
        (Filters, {"worst": 1.0}, "less than 1"),
        (Filters, {"worst": -0.1}, "greater than or equal to 0"),
        (Filters, {"copy": 0.9}, "Extra inputs are not permitted"),
        (Repetition, {"ngram": 1}, "greater than or equal to 2"),
        (Repetition, {"more": 0}, "greater than 0"),
    ],
)
def test_filters_that_make_no_sense_are_refused(section, wrong, message):
    with pytest.raises(ValidationError, match=message):
        section.model_validate(wrong)


def test_filters_are_read_from_lists_and_null_switches_a_check_off():
    read = Filters.model_validate({"length_ratio": [0.5, 2], "scripts": ["Latin"], "repetition": None})
    assert (read.length_ratio, read.scripts, read.repetition) == ((0.5, 2.0), ("Latin",), None)
    assert why("Ich sehe ein Haus.", "I see a a a a house.", read) == ()
