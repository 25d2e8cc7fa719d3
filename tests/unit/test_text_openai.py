"""A teacher behind an API: every fault a server can have is one clear error, or waited out."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from configs.decoding import Decoding
from configs.endpoint import Endpoint
from distill.errors import TeacherError
from teachers.text.openai import EndpointWriter
from tests.helpers.server import refuse, reply

ONE = Decoding(beams=1)


@pytest.fixture
def writer(server) -> Iterator[Callable[..., EndpointWriter]]:
    made: list[EndpointWriter] = []

    def make(**changes: Any) -> EndpointWriter:
        section = {"kind": "openai", "model": "echo-7b", "url": server.url, "retries": 2, "timeout": 5.0, **changes}
        made.append(EndpointWriter(Endpoint(**section)))
        return made[-1]

    yield make
    for one in made:
        one._client.close()


def ask(writer: EndpointWriter, count: int = 1, decoding: Decoding = ONE) -> dict[int, Any]:
    return dict(writer.generate([f"row {number}" for number in range(count)], decoding))


def test_every_row_is_asked_once_and_counted(server, writer):
    made = writer(system="Shout.", prompt="Say: {text}", price_in=2.0, price_out=10.0, seed=4)
    found = ask(made, 40)
    assert {place: one.texts[0].text for place, one in found.items()} == {n: f"SAY: ROW {n}" for n in range(40)}
    assert all(one.texts[0].ended and one.texts[0].score is None for one in found.values())
    assert len(server.asked) == 40 and server.asked[0]["messages"][0] == {"role": "system", "content": "Shout."}
    assert server.asked[0]["seed"] == 4 and server.asked[0]["temperature"] == 0.0
    assert (made.usage.requests, made.usage.tokens_in, made.usage.tokens_out) == (40, 120, 80)
    assert made.usage.price(made._endpoint) == pytest.approx((120 * 2 + 80 * 10) / 1e6)


def test_as_many_at_once_as_allowed_and_no_more(server, writer):
    server.delay = 0.05
    ask(writer(concurrency=3), 12)
    assert server.most_at_once == 3


def test_keeps_the_pace_it_is_given(writer):
    began = time.monotonic()
    ask(writer(per_minute=1200), 9)
    assert time.monotonic() - began > 8 * 60 / 1200


def test_several_texts_of_a_row(server, writer):
    found = ask(writer(temperature=0.7), 2, Decoding(beams=3, hypotheses=3))
    assert [len(one.texts) for one in found.values()] == [3, 3] and server.asked[0]["n"] == 3


def test_an_answer_cut_at_the_limit_did_not_end(server, writer):
    server.script = [lambda body: (200, reply(["cut"], "length"))]
    assert not ask(writer())[0].texts[0].ended


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_broken_server_is_waited_out(server, writer, status):
    server.script = [refuse(status, "later")] * 2
    assert ask(writer())[0].texts[0].text == "ROW 0" and len(server.asked) == 3


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([refuse(401, "bad key")] * 1, "refuses the key in $MY_KEY: Error code: 401"),
        ([refuse(401, "bad key: s3cret")] * 1, "bad key: $MY_KEY"),  # some servers repeat it
        ([lambda body: (200, b"who is s3cret")] * 3, "gave 0 of 1 texts, 3 times: who is $MY_KEY"),
        ([refuse(429, "slow down")] * 3, "is asked too much, after 3 tries; lower `concurrency` or set `per_minute`"),
        ([refuse(500, "oops")] * 3, "is broken, after 3 tries"),
        ([lambda body: (200, {"choices": []})] * 3, "gave 0 of 1 texts, 3 times"),
        ([lambda body: (200, {"error": "no model is loaded"})] * 3, "no model is loaded"),
        ([lambda body: (200, b"<html>")] * 3, "gave 0 of 1 texts, 3 times: <html>"),
    ],
)
def test_what_cannot_be_mended_is_one_error_that_names_row_and_server(server, writer, monkeypatch, script, message):
    monkeypatch.setenv("MY_KEY", "s3cret")
    server.script = list(script)
    with pytest.raises(TeacherError) as caught:
        ask(writer(key="MY_KEY"))
    text = str(caught.value)
    assert text.startswith(f"'row 0': echo-7b at {server.url} ") and message in text
    assert "s3cret" not in text and server.keys[0] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([refuse(400, "prompt too long")], "refuses: Error code: 400"),
        ([refuse(422, "not this")], "refuses: Error code: 422"),
        ([lambda body: (200, reply([None]))] * 3, "gave 0 of 1 texts, 3 times"),
    ],
)
def test_a_row_that_is_refused_has_no_text_and_the_others_do(server, writer, script, message):
    made = writer(concurrency=1)
    server.script = list(script)
    found = ask(made, 3)
    assert sorted(len(one.texts) for one in found.values()) == [0, 1, 1]
    (why,) = made.refusals
    assert str(why).startswith("'row ") and message in str(why)


@pytest.mark.parametrize(("told", "counted"), [("3", 3), (None, 0), ("many", 0), (-1, 0), ([4], 0)])
def test_tokens_that_are_no_number_are_not_counted(server, writer, told, counted):
    server.script = [lambda body: (200, {**reply(["ROW 0"]), "usage": {"prompt_tokens": told}})]
    made = writer()
    assert ask(made)[0].texts[0].text == "ROW 0"
    assert (made.usage.requests, made.usage.tokens_in, made.usage.tokens_out) == (1, counted, 0)


def test_one_bad_answer_is_asked_again(server, writer):
    server.script = [lambda body: (200, reply([None]))]
    assert ask(writer())[0].texts[0].text == "ROW 0" and len(server.asked) == 2


def test_a_server_that_is_down_is_named(server, writer):
    made = writer(retries=0)
    server.close()
    with pytest.raises(TeacherError, match=r"cannot be reached, after 1 tries"):
        ask(made)


def test_a_server_that_does_not_answer_is_given_up(server, writer):
    server.delay = 0.6
    with pytest.raises(TeacherError, match=r"does not answer within 0\.2 s, after 1 tries"):
        ask(writer(timeout=0.2, retries=0))


def test_an_error_ends_the_asking(server, writer):
    """Rows that were not asked yet are not asked any more."""
    server.script = [refuse(401, "no")] * 50
    with pytest.raises(TeacherError):
        ask(writer(concurrency=2), 50)
    assert len(server.asked) <= 6


def test_a_model_the_server_has_not_is_found_at_set_up(writer):
    writer().check()
    with pytest.raises(TeacherError, match=r"has no model `eco-7b`; did you mean `echo-7b`\?"):
        writer(model="eco-7b").check()


def test_a_server_without_a_list_is_taken_at_its_word(server, writer):
    server.lists = False
    writer(model="eco-7b").check()


def test_a_key_that_is_not_set_or_would_travel_in_the_clear_is_refused(monkeypatch):
    section = Endpoint(kind="openai", model="m", url="http://example.org/v1", key="MY_KEY")
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(TeacherError, match="the environment variable `MY_KEY` is not set"):
        EndpointWriter(section)
    monkeypatch.setenv("MY_KEY", "s3cret")
    with pytest.raises(TeacherError, match=r"http://example\.org/v1 would send the key in the clear"):
        EndpointWriter(section)


def test_what_decides_the_answers_is_in_the_fingerprint_and_what_does_not_is_not(writer):
    made = writer()
    assert made.fingerprint == writer(concurrency=2, per_minute=5, price_in=1.0).fingerprint
    assert len({made.fingerprint, writer(model="x").fingerprint, writer(temperature=1.0).fingerprint}) == 3


def test_a_prompt_without_the_text_is_refused():
    with pytest.raises(ValidationError, match=r"holds no `\{text\}`"):
        Endpoint(kind="openai", model="m", prompt="Translate.")
