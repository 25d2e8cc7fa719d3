"""The JSON Schema by which editors complete and explain a configuration."""

from typing import Any

from configs.pipeline import Pipeline


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file; descriptions are the sections' own docstrings.

    A file that extends another may leave out what it inherits, so nothing below the top is required here, and
    null may stand for an inherited stage or source that is dropped: `load` has the last word.
    """
    whole: dict[str, Any] = _loosened(Pipeline.model_json_schema())
    required = [name for name, field in Pipeline.model_fields.items() if field.is_required() and name != "output"]
    for key in ("data", "stages"):
        named = whole["properties"][key]
        named["patternProperties"] = {
            pattern: {"anyOf": [*section["anyOf"], {"type": "null"}]}
            for pattern, section in named["patternProperties"].items()
        }
    name = {"type": "string", "description": "A preset's name, or the path of a file from this file's folder."}
    whole["properties"]["extends"] = {
        "anyOf": [name, {"type": "array", "items": name}],
        "description": "What this file builds on: tables merge by key, everything else replaces.",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "if": {"required": ["extends"]},
        "else": {"required": required},
    }


def _loosened(schema: Any) -> Any:
    """Return the schema without `required`, and with unions any of whose members may match a partial section."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    named = {"oneOf": "anyOf"}
    return {
        named.get(key, key): _loosened(item) for key, item in schema.items() if key not in ("required", "discriminator")
    }
