"""Where the knowledge comes from."""

from typing import Literal

from configs.section import Section


class LiveTeacher(Section):
    """A model that runs beside the student in every step."""

    kind: Literal["live"] = "live"
    model: str
    """A folder, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the teacher's weights are held in."""
