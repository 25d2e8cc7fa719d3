"""The recorded stage: texts that somebody else wrote, in the place of those a teacher writes here."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.stages import RecordedStage
from distill.data.rows import Rows
from distill.errors import DataError
from distill.files import digest
from distill.types import Completion
from pipelines.generate import SHARDS, different
from pipelines.run import Run
from pipelines.source_files import files_of
from pipelines.stage import Stage
from teachers.text.recorded import by_row
from teachers.text.store import Plan, write_shards

SHARD_CHARACTERS = 10_000_000
"""Nothing is computed that a kill could lose: large shards."""


def match(run: Run, stage: RecordedStage, where: str) -> tuple[dict[int, Completion], Rows, Rows]:
    """Return the texts by the keys of their rows, all rows they may be for, and those that have one.

    Raises DataError where none of them go together.
    """
    texts = by_row(Rows.concatenate([run.rows(name) for name in stage.texts]))
    every = different(Rows.concatenate([run.rows(name) for name in stage.data or stage.texts]))
    rows = every.take(np.isin(every.ids, np.fromiter(texts, np.int64, len(texts))))
    if not len(rows):
        raise DataError(
            f"{where}.texts: none of {len(texts):,} sources with a text is among the {len(every):,} of "
            f"{', '.join(stage.data)}; they are matched by their whole text, and by `columns.id` where it is set"
        )
    return texts, every, rows


class Recorded(Stage[RecordedStage]):
    """Writes the shards a generate stage would, with what is known of where the texts are from."""

    kind = "recorded"
    joint = True

    def fingerprint(self) -> str:
        """Depend on the texts, the sources they are for, and what is said of them."""
        config = self._config
        sources = [self._run.source_fingerprint(name) for name in (*config.texts, *config.data)]
        return digest("recorded", config.model_dump_json(), *sources)

    def run(self, output: Path) -> dict[str, Any]:
        """Write the texts that belong to a source."""
        config = self._config
        texts, every, rows = match(self._run, config, f"stages.{self.name}")
        about = {"provenance": config.provenance, "licence": config.licence, "files": self._files()}
        content = [digest(*(one.text for one in texts[row.id].texts)) for row in rows]
        plan = Plan.of(rows, {"recorded": digest(*content)}, SHARD_CHARACTERS)
        keys = rows.ids

        def write(places: NDArray[np.int64]) -> list[Completion]:
            return [texts[int(keys[place])] for place in places]

        write_shards(plan, output / SHARDS, write, about=about)
        return {
            "rows": len(rows),
            "without_text": len(every) - len(rows),
            "unmatched": len(texts) - len(rows),
            "texts": sum(len(texts[key].texts) for key in keys.tolist()),
            "key": plan.key,
            "shards": len(plan.shards),
            **about,
        }

    def _files(self) -> dict[str, str]:
        """Return the SHA-256 of every local file the texts come from."""
        sources = [self._run.config.data[name] for name in self._config.texts]
        return {path: found for source in sources for path, found in files_of(source).items()}
