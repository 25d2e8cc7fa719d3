"""Where the models lie that train stages ended with, one for each repeat."""

from dataclasses import replace

from configs.stages import EvaluateStage, TrainStage
from distill.adapters import NONE
from distill.files import digest
from distill.metrics import validation_metric
from distill.models import ModelSource, fingerprint
from pipelines.run import Run
from pipelines.stage import results_of
from pipelines.train import MODEL


def trained(run: Run, name: str, seed: int | None) -> ModelSource:
    """Return where the model of a train stage lies. Raise ModelError where the stage is not finished."""
    folder = run.stage_folder(name, seed)
    results_of(folder)  # or it is not finished
    return ModelSource(str(folder / MODEL))


def every_seed(run: Run, name: str, below: str | None = None) -> list[tuple[int, ModelSource]]:
    """Return the models of a train stage with the numbers of their repeats; one that all share has the first's. `below`
    takes the place of the lowest adapter under theirs.
    """
    models = {run.config.seed if seed is None else seed: trained(run, name, seed) for seed in run.seeds_of(name)}
    return [(seed, replace(model, below=below)) for seed, model in models.items()]


def evaluation_fingerprint(run: Run, stage: EvaluateStage) -> str:
    """Return a digest of the models an evaluate stage compares and the rows it compares them on."""
    named = [stage.student, *filter(None, [stage.baseline]), *stage.others]
    models = [run.stage_fingerprint(name, seed) for name in named for seed in run.seeds_of(name)]
    rows = run.source_fingerprint(stage.data)
    if stage.below not in (None, NONE):
        models.append(fingerprint(ModelSource(stage.below)))
    return digest("evaluate", stage.model_dump_json(), run.teacher_fingerprint("task"), rows, *models)


def best_seed(run: Run, name: str) -> int | None:
    """Return the repeat whose student scored best on its validation rows; the first where none was scored. Raise
    ModelError where one is not finished.
    """
    seeds = run.seeds_of(name)
    results = {seed: results_of(run.stage_folder(name, seed))["results"] for seed in seeds}
    if not all("validation" in found for found in results.values()):
        return seeds[0]
    stage = run.config.stages[name]
    texts = isinstance(stage, TrainStage) and stage.training.validate_texts > 0
    metric = validation_metric(run.config.task, texts=texts)
    return max(seeds, key=lambda seed: results[seed]["validation"][metric])
