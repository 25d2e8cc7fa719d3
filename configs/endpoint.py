"""A teacher behind an API."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from configs.section import Section


class Endpoint(Section):
    """A model that is asked over HTTP, by the protocol of OpenAI's chat completions: a black box that writes text."""

    kind: Literal["openai"]
    model: str
    """Name the server knows the model by."""
    url: str = "https://api.openai.com/v1"
    key: str | None = None
    """Name of the environment variable that holds the key; none for a server without one. The key is never written."""
    system: str | None = None
    """System message before each prompt."""
    prompt: str = "{text}"
    """What is asked; `{text}` is the row's text."""
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: int | None = None
    """Sent with each request; servers that can make their texts repeatable by it."""
    max_tokens: PositiveInt = 1024
    """Bound on the tokens of an answer."""
    concurrency: PositiveInt = 8
    """Requests under way at a time."""
    per_minute: PositiveInt | None = None
    """Bound on requests a minute."""
    timeout: PositiveFloat = 120.0
    """Seconds a request may take."""
    retries: NonNegativeInt = 6
    """Tries after the first one, each later than the one before: where the server is busy, broken or not there."""
    price_in: NonNegativeFloat = 0.0
    """Price of a million tokens sent."""
    price_out: NonNegativeFloat = 0.0
    """Price of a million tokens received."""

    @field_validator("prompt")
    @classmethod
    def _asks_about_the_row(cls, value: str) -> str:
        if "{text}" not in value:
            raise ValueError("holds no `{text}`: every row would ask the same")
        return value
