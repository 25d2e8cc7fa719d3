"""What goes wrong with texts: on examples by hand, and against plain loops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.text_faults import FAULTS, Written, bare, fault_shares, longest_loop, top_ngram

words = st.lists(st.sampled_from("abc"), max_size=14)
texts = st.text(alphabet="ab .,中ก", max_size=30)


def plain_loop(line: list[str]) -> int:
    """Every n-gram of 1 to 4 words, wherever it stands: how often it goes on."""
    most = 1
    for n in (1, 2, 3, 4):
        for start in range(len(line)):
            gram, times = line[start : start + n], 1
            while len(gram) == n and line[start + n * times : start + n * (times + 1)] == gram:
                times += 1
            most = max(most, times)
    return most


def plain_top(line: list[str]) -> int:
    grams = [line[start : start + 4] for start in range(len(line) - 3)]
    return max((grams.count(gram) for gram in grams), default=0)


def faults(text: str, source: str = "Das ist ein Satz.", references: tuple[str, ...] = ("This is it.",)) -> set[str]:
    """The faults of one text."""
    return {name for name, share in fault_shares([Written(text, source, references)]).items() if share}


@given(words)
def test_loops_and_ngrams_are_those_of_plain_loops(line):
    assert longest_loop(" ".join(line)) == plain_loop(line)
    assert top_ngram(" ".join(line)) == plain_top(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("A dog, a dog, a dog.", 2),  # the third has no comma behind it
        ("No, no, NO, no!", 3),
        ("no no no no", 4),
        ("a b c d a b c d a b c d e", 3),
        ("a b c d e a b c d e", 1),  # five words are a phrase
        ("那个人那个人那个人去", 3),  # letters of Chinese, two a word
        ("一二三四五六七八一二三四五六七八", 2),
        ("abc" * 20, 1),
    ],
)
def test_loops_by_hand(text, expected):
    assert longest_loop(text) == expected


def test_a_phrase_of_four_words_is_eight_letters_of_chinese_and_sixteen_of_thai():
    assert top_ngram("人工智能和人工智能与人工智能") == 1  # a term that comes again is no loop
    assert top_ngram("人工智能技术发展" * 3) == 3
    assert top_ngram("ก" * 15) == 0 and top_ngram("ก" * 16) == 1


def test_repetition_is_three_more_in_a_row_than_in_the_source_and_more_than_in_the_reference():
    assert "repetition" in faults("the dog the dog the dog the dog")
    assert "repetition" not in faults("the dog the dog the dog")
    assert "repetition" not in faults("no no no no", source="nein nein")
    assert "repetition" in faults("no no no no no", source="nein nein")
    assert "repetition" not in faults("no no no no", references=("Never.", "no no no no!"))
    assert "repetition" in faults("no no no no no", references=("no no no no!",))


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=5))
def test_shares_of_repetition_and_oscillation_by_plain_loops(rows):
    repeated = [
        plain_loop(text) >= plain_loop(source) + 3 and plain_loop(text) > plain_loop(reference)
        for text, source, reference in rows
    ]
    told: dict[str, set[str]] = {}
    for text, source, _ in rows:
        told.setdefault(" ".join(text), set()).add(" ".join(source))
    hallucinated = [
        text != [] and text != ref and (plain_top(text) - plain_top(source) >= 2 or len(told[" ".join(text)]) >= 3)
        for text, source, ref in rows
    ]
    found = fault_shares([Written(" ".join(text), " ".join(source), [" ".join(ref)]) for text, source, ref in rows])
    assert found["repetition"] == sum(repeated) / len(rows)
    assert found["hallucinated"] == sum(hallucinated) / len(rows)


def test_a_copy_is_the_source_where_it_is_no_translation():
    assert faults("das ist ein Satz!") == {"copies"}
    assert faults("Das ist ein Satz mehr.") == set()
    assert faults("Angela Merkel", source="Angela Merkel", references=("Frau Merkel", "Angela Merkel.")) == set()
    assert "copies" not in faults("...", source="?!")


def test_an_oscillation_is_a_phrase_that_comes_twice_more_than_any_in_the_source():
    loop = "he said to her and he said to her but he said to her"
    assert faults(loop) == {"hallucinated"}
    assert faults(loop.removesuffix("her"), source="er sagte es ihr") == set()  # twice, and once
    assert faults(loop, source="er sagte es ihr und er sagte es ihr") == set()
    assert faults(loop, references=(loop.upper() + ".",)) == set()


def test_a_detached_text_is_that_of_three_sources_and_of_no_reference():
    def shares(sources: list[str], *texts: str) -> float:
        return fault_shares([Written(t, s, ["Yes"]) for t, s in zip(texts, sources, strict=True)])["hallucinated"]

    three = ["eins", "zwei", "drei", "vier"]
    assert shares(three, "I see.", "I see.", "i see!", "Other") == 3 / 4
    assert shares(three, "I see.", "I see.", "Else", "Other") == 0
    assert shares(["eins", "zwei", "Zwei!", "zwei"], *["I see."] * 4) == 0
    assert shares(three, *["yes!"] * 4) == 0
    assert shares(three, *["…"] * 4) == 1
    assert shares(three, *[" "] * 4) == 0


def test_an_empty_text_has_no_other_fault():
    assert faults("") == faults(" \n\t") == faults("", source="") == {"empty"}


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_a_reference_has_no_faults_but_being_empty(rows):
    found = fault_shares([Written(text, source, [text]) for text, source in rows])
    empty = sum(not text.strip() for text, _ in rows) / len(rows)
    assert found == dict.fromkeys(FAULTS, 0.0) | {"empty": empty}


def test_words_go_by_letters_of_any_script():
    assert bare("„Straße“, sagte Ἑλένη – नमस्ते!") == "strasse sagte ἑλένη नमस्ते"
    assert bare("人, ก ๒") == "人 ก ๒"
