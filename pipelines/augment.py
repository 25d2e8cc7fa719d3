"""The augment stage: TinyBERT's data augmentation, written as rows for later stages."""

from pathlib import Path
from typing import Any

from configs.stages import AugmentStage
from distill.callbacks.progress import ProgressLine
from distill.data.augmented import Augmentation, write_augmented
from distill.data.masked import MaskedLM, has_masked_lm, load_masked_lm
from distill.data.neighbours import load_neighbours
from distill.files import digest
from distill.models import ModelSource, fingerprint, load_config
from pipelines.place import own_device, share
from pipelines.stage import Stage


class Augment(Stage[AugmentStage]):
    """Writes the rows of a source and their copies as Parquet, in parts that all ranks share; a run that was cut goes
    on at the next.
    """

    kind = "augment"
    joint = True

    def fingerprint(self) -> str:
        """Depend on the rows, the section and the models that propose words."""
        run, config = self._run, self._config
        models = [fingerprint(source) for source in (self._masked_source(), self._embeddings_source())]
        return digest(
            "augment", config.model_dump_json(), run.source_fingerprint(config.data), str(run.config.seed), *models
        )

    def run(self, output: Path) -> dict[str, Any]:
        """Write the rows."""
        run, config = self._run, self._config
        rows = run.rows(config.data)
        masked = self._masked_lm()
        if masked is None:
            run.console.print(
                f"  {self._masked_source().path} has no masked-language head: "
                "neighbours in the embeddings propose words for all words",
                highlight=False,
            )
        where = f"stages.{self.name}.embeddings"
        neighbours = load_neighbours(self._embeddings_source(), config.candidates, where)
        how = Augmentation(config, masked, neighbours, run.config.seed)
        rank, ranks = share()
        with ProgressLine(run.console, self.title, "parts") as line:
            notes = write_augmented(rows, output, how, rank=rank, ranks=ranks, progress=line.advance)
        return {"originals": len(rows), "summary": _summary(notes), "notes": notes}

    def _masked_lm(self) -> MaskedLM | None:
        """Load the proposing language model: the one asked for, or the teacher model where it has such a head."""
        config, where = self._config, f"stages.{self.name}.masked_model"
        source = self._masked_source()
        if config.masked_model is None and not has_masked_lm(load_config(source, where)):
            return None
        return load_masked_lm(source, config.candidates, where, own_device(self._run.device.torch_name))

    def _masked_source(self) -> ModelSource:
        return self._run.base if self._config.masked_model is None else ModelSource(self._config.masked_model)

    def _embeddings_source(self) -> ModelSource:
        return self._run.base if self._config.embeddings is None else ModelSource(self._config.embeddings)


def _summary(notes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in notes.items()) or "written"
