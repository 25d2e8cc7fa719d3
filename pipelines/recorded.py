"""The recorded stage: texts that somebody else wrote, in the place of those a teacher writes here."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.stages import RecordedStage
from distill.data.rows import Rows
from distill.errors import DataError
from distill.files import digest
from pipelines.generate import SHARDS, different
from pipelines.stage import Stage
from teachers.text.recorded import by_row
from teachers.text.store import Plan, write_shards

SHARD_CHARACTERS = 10_000_000
"""Nothing is computed that a kill could lose: large shards."""


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
        """Match texts and sources. Raise DataError where none of them go together."""
        run, config = self._run, self._config
        texts = by_row(Rows.concatenate([run.rows(name) for name in config.texts]))
        every = different(Rows.concatenate([run.rows(name) for name in config.data or config.texts]))
        rows = every.take(np.isin(every.ids, np.fromiter(texts, np.int64, len(texts))))
        if not len(rows):
            raise DataError(
                f"stages.{self.name}.texts: none of {len(texts):,} sources with a text is among the {len(every):,} of "
                f"{', '.join(config.data)}; they are matched by their whole text, and by `columns.id` where it is set"
            )
        about = {"provenance": config.provenance, "licence": config.licence, "files": self._files()}
        content = [digest(*(one.text for one in texts[row.id].texts)) for row in rows]
        plan = Plan.of(rows, {"recorded": digest(*content)}, SHARD_CHARACTERS)
        keys = rows.ids

        def write(places: NDArray[np.int64]) -> list[Any]:
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
        return {path: found for name in self._config.texts for path, found in self._run.files_of(name).items()}
