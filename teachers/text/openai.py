"""Text from any server that speaks OpenAI's protocol: a black box, asked many times at once, counted and paid for."""

import ipaddress
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import openai

from configs.decoding import Decoding
from configs.endpoint import Endpoint
from configs.errors import suggest
from distill.errors import TeacherError
from distill.files import digest
from distill.protocols import TextTeacher
from distill.types import Completion, Text
from teachers.text.ledger import Ledger, Usage

MALFORMED_TRIES = 3
"""Times a row is asked whose answer is none, before it counts as an error."""


class EndpointWriter(TextTeacher):
    """Asks a row a request; answers come in any order."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Take the section. Raises TeacherError for a key that is not set, or would travel in the clear."""
        self._endpoint = endpoint
        self._key = _key(endpoint)
        self._client = openai.OpenAI(
            base_url=endpoint.url,
            api_key=self._key or "none",  # the client wants one; servers without keys look past it
            max_retries=endpoint.retries,
            timeout=endpoint.timeout,
        )
        self._pace = _Pace(endpoint.per_minute)
        self._lock = threading.Lock()
        self.usage = Usage()
        """Of this process"""
        self.ledger = Ledger()
        self.refusals: list[TeacherError] = []
        """Why rows have no text: the server refused them"""

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides the answers; the server may still change its model behind its name."""
        kept = {"url", "model", "system", "prompt", "temperature", "top_p", "seed", "max_tokens"}
        return digest("openai", self._endpoint.model_dump_json(include=kept))

    def describe(self) -> str:
        """Say who is asked."""
        return f"{self._endpoint.model} at {self._endpoint.url}"

    def check(self) -> None:
        """Ask for the list of models, where the server has one. Raises TeacherError where ours is not on it, or the
        server cannot be reached or refuses.
        """
        try:
            names = [model.id for model in self._client.with_options(max_retries=1).models.list()]
        except (openai.NotFoundError, openai.InternalServerError):
            return  # not every server lists its models
        except openai.OpenAIError as error:
            raise self._explained(error) from error
        if names and self._endpoint.model not in names:
            raise TeacherError(
                f"teacher.model: {self._endpoint.url} has no model `{self._endpoint.model}`"
                f"{suggest(self._endpoint.model, names)}"
            )

    def generate(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, Completion]]:
        """Yield the place and the texts of each prompt as they come; `decoding.hypotheses` texts are asked for. A
        prompt that the server refuses (for what it says, or its length) has none. What the ledger knows is not asked.

        Raises TeacherError where the server cannot be reached, refuses the key, or gives no answer, after the tries it
        has.
        """
        unknown = []
        for place, prompt in enumerate(prompts):
            known = self.ledger.known(prompt)
            if known is None:
                unknown.append((place, prompt))
            else:
                yield place, Completion(known)
        waiting = iter(unknown)
        with ThreadPoolExecutor(self._endpoint.concurrency) as pool:
            asked: set[Future[tuple[int, Completion]]] = set()
            try:
                while True:
                    room = 2 * self._endpoint.concurrency - len(asked)
                    for place, prompt in islice(waiting, room):
                        asked.add(pool.submit(self._ask, place, prompt, decoding.hypotheses))
                    if not asked:
                        return
                    done, asked = wait(asked, return_when=FIRST_COMPLETED)
                    for answer in done:
                        yield answer.result()
            finally:
                for answer in asked:
                    answer.cancel()

    def _ask(self, place: int, prompt: str, texts: int) -> tuple[int, Completion]:
        spent, found = Usage(), Completion(())
        try:
            found = self._answered(prompt, texts, spent)
        finally:  # what ends in an error was paid for, too, and so was what others are being answered meanwhile
            with self._lock:
                self.usage.add(spent)
            if spent.requests:
                self.ledger.note(prompt, found.texts, spent)
        return place, found

    def _answered(self, prompt: str, texts: int, spent: Usage) -> Completion:
        where = f"{prompt[:60]!r}: "
        for _ in range(MALFORMED_TRIES):
            self._pace.wait()
            try:
                answer = self._request(prompt, texts)
            except json.JSONDecodeError as error:
                answer = error.doc
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                return self._refused(self._explained(error, where))
            except openai.OpenAIError as error:
                raise self._explained(error, where) from error
            found = _texts(answer)
            spent.add(_cost(answer))
            if len(found) == texts:
                return Completion(tuple(found))
        what = f"gave {len(found)} of {texts} texts, {MALFORMED_TRIES} times: {self._brief(str(answer))}"
        why = TeacherError(f"{where}{self.describe()} {what}")
        if _is_answer(answer):
            return self._refused(why)
        raise why

    def _refused(self, why: TeacherError) -> Completion:
        with self._lock:
            self.refusals.append(why)
        return Completion(())

    def _request(self, prompt: str, texts: int) -> Any:
        endpoint = self._endpoint
        system = [{"role": "system", "content": endpoint.system}] if endpoint.system else []
        asked = {"role": "user", "content": endpoint.prompt.replace("{text}", prompt)}
        optional: dict[str, Any] = {"n": texts} if texts > 1 else {}
        optional |= {"seed": endpoint.seed} if endpoint.seed is not None else {}
        return self._client.chat.completions.create(
            model=endpoint.model,
            messages=[*system, asked],  # type: ignore[list-item]
            temperature=endpoint.temperature,
            top_p=endpoint.top_p,
            max_tokens=endpoint.max_tokens,
            **optional,
        )

    def _explained(self, error: openai.OpenAIError, where: str = "") -> TeacherError:
        """Say what an error means to the user."""
        tries = f"after {self._endpoint.retries + 1} tries"
        said = self._brief(str(error))
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                named = f"the key in ${self._endpoint.key}" if self._endpoint.key else "a request without a key"
                what = f"refuses {named}: {said}"
            case openai.RateLimitError():
                what = f"is asked too much, {tries}; lower `concurrency` or set `per_minute`: {said}"
            case openai.APITimeoutError():
                what = f"does not answer within {self._endpoint.timeout:g} s, {tries}"
            case openai.APIConnectionError():
                what = f"cannot be reached, {tries}: {self._brief(str(error.__cause__ or error))}"
            case openai.InternalServerError():
                what = f"is broken, {tries}: {said}"
            case _:
                what = f"refuses: {said}"
        return TeacherError(f"{where}{self.describe()} {what}")

    def _brief(self, text: str) -> str:
        """Cut a server's words to a line, without the key, which some repeat."""
        hidden = text.replace(self._key, f"${self._endpoint.key}") if self._key else text
        line = " ".join(hidden.split())
        return line if len(line) <= 300 else line[:300] + " …"


class _Pace:
    """Lets no more than so many pass in a minute, evenly."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._gap
        time.sleep(max(0.0, turn - time.monotonic()))


def _texts(answer: Any) -> list[Text]:
    """Return the texts of an answer; none where it holds none."""
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list):
        return []
    found = []
    for choice in choices:
        content = getattr(getattr(choice, "message", None), "content", None)
        if isinstance(content, str):
            found.append(Text(content, None, None, getattr(choice, "finish_reason", None) == "stop"))
    return found


def _cost(answer: Any) -> Usage:
    used = getattr(answer, "usage", None)
    return Usage(1, _number(getattr(used, "prompt_tokens", 0)), _number(getattr(used, "completion_tokens", 0)))


def _is_answer(answer: Any) -> bool:
    """Whether an answer has the form of one, with or without a text: a filter of contents leaves it out."""
    choices = getattr(answer, "choices", None)
    return isinstance(choices, list) and any(getattr(choice, "message", None) is not None for choice in choices)


def _key(endpoint: Endpoint) -> str:
    if endpoint.key is None:
        return ""
    key = os.environ.get(endpoint.key)
    if not key:
        raise TeacherError(f"teacher.key: the environment variable `{endpoint.key}` is not set")
    if urlsplit(endpoint.url).scheme != "https" and not _is_local(endpoint.url):
        raise TeacherError(f"teacher.url: {endpoint.url} would send the key in the clear; use https")
    return key


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _number(told: Any) -> int:
    """Return a count as a server told it; 0 where that is none."""
    try:
        return max(0, int(told))
    except (TypeError, ValueError):
        return 0
