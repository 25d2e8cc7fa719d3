"""What can be known to be wrong with models that write, before anything is trained."""

from itertools import chain

from transformers import PreTrainedTokenizerBase

from configs.data import StageData
from configs.stages import GenerateStage, RecordedStage, RecordStage, SelectStage, TrainStage
from distill import languages
from distill.errors import ModelError
from distill.models import Loaded, has_head, load_config, load_tokenizer
from pipelines.generate import black_box, check_ensemble, check_some, writable
from pipelines.recorded import match as match_texts
from pipelines.run import Run
from pipelines.select import reverse_of
from teachers.text.build import inconvertible


def check_generations(run: Run, loaded: Loaded | None) -> None:
    """Check that the teacher has positions for every source, and a token for the language asked for; that an API
    answers, that recorded texts have sources, and that a model of the reverse direction is there, and reads and writes.
    """
    for where, (model, task) in reverse_of(run.config).items():
        config = load_config(model, where)
        if not (config.is_encoder_decoder and has_head(config, task)):
            made = ", ".join(config.architectures or (config.model_type,))
            raise ModelError(
                f"{where}: {model.path} is a {made}; the model of the reverse direction reads a text and writes its "
                "source, as an encoder-decoder does (Marian, BART, T5)"
            )
        languages.tell(load_tokenizer(model, where), run.config.task, where)
    for name, stage in run.config.stages.items():
        if isinstance(stage, RecordedStage):
            if not any(isinstance(run.config.data[source], StageData) for source in (*stage.texts, *stage.data)):
                match_texts(run, stage, f"stages.{name}")
        elif isinstance(stage, RecordStage) and stage.ensemble and loaded is not None:
            _joined(run, stage, loaded, f"stages.{name}")
        elif isinstance(stage, GenerateStage) and stage.endpoint is not None:
            black_box(stage.endpoint)
        elif isinstance(stage, GenerateStage) and loaded is not None:
            check_ensemble(loaded, stage, f"stages.{name}")
            if stage.engine == "ctranslate2" and (reason := inconvertible(loaded.model.config)):
                raise ModelError(f"stages.{name}.engine: {reason}")
            known = [source for source in stage.data if not isinstance(run.config.data[source], StageData)]
            kept = [len(writable(run.rows(source), loaded, stage, f"stages.{name}")) for source in known]
            if len(known) == len(stage.data):
                check_some(sum(kept), f"stages.{name}")


def mark_languages(run: Run, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the teacher, or a model of the reverse direction, marks texts with their language."""
    others = (load_tokenizer(model, where) for where, (model, _) in reverse_of(run.config).items())
    return any(map(languages.has_many, chain([tokenizer], others)))


def _joined(run: Run, stage: RecordStage, loaded: Loaded, where: str) -> None:
    """Check that the models of an ensemble can be averaged with the teacher."""
    if run.config.task.kind != "generation":
        raise ModelError(f"{where}.ensemble: is for texts, and `task.kind` is `{run.config.task.kind}`; leave it out")
    if run.teacher_is_sharded:
        raise ModelError(f"{where}.ensemble: a sharded teacher is asked alone; leave it out")
    check_ensemble(loaded, stage, where)


def warn_of_kept(run: Run) -> None:
    """Warn where a student of the teacher's texts would be kept by how likely the references are to it."""
    for name, stage in run.config.stages.items():
        if not isinstance(stage, TrainStage) or stage.training.keep == "last" or stage.training.validate_texts:
            continue
        sources = [run.config.data[source] for source in stage.data]
        wrote = [run.config.stages[source.stage] for source in sources if isinstance(source, StageData)]
        if stage.validation is not None and any(isinstance(one, SelectStage) for one in wrote):
            run.screen.warning(
                f"stages.{name}.training.keep: best goes by how likely the references are, which peaks long before a "
                "student of the teacher's texts writes best; validate_texts=200 goes by what it writes"
            )
