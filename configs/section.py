"""The base of every section: closed, frozen, documented."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a run's configuration: unknown keys are errors, values never change once read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )
