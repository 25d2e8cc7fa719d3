"""The train stage: one loop for students under a teacher, students alone, and teachers on the task."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch

from configs.stages import TrainStage
from configs.students import BaseStudent
from configs.training import CHANGES_NOTHING, Training
from distill.callbacks.checkpoint_io import newest
from distill.callbacks.checkpoints import Checkpoints, load_best
from distill.callbacks.clip import Clip
from distill.callbacks.log import LossLog
from distill.callbacks.peak import Peak
from distill.callbacks.progress import ProgressLine
from distill.callbacks.stop import Stop
from distill.callbacks.watch import Watch
from distill.data.module import DistillData
from distill.data.rows import by_source
from distill.files import digest, whole_folder
from distill.metrics import AnswerMetrics, TargetMetrics, TaskMetrics, validation_metric
from distill.models import Loaded, ModelSource, fingerprint
from distill.module import DistillModule, Metrics, Recipe
from distill.objective import build as build_objective
from distill.strategies.build import Spread
from distill.strategies.build import build as build_strategy
from distill.token_metrics import TokenMetrics
from pipelines.adapter_teacher import adapter_fingerprints
from pipelines.batches import plan_of
from pipelines.beat import Beat
from pipelines.check_rows import check_gold
from pipelines.extensions import build_for_disks
from pipelines.place import is_helper
from pipelines.room import kept_small
from pipelines.score_table import score_table
from pipelines.spread import own_disk, strategy_of
from pipelines.stage import Stage
from pipelines.stage_teacher import StageTeacher, asking
from pipelines.train_logs import clear_logs, loggers
from pipelines.trainers import only_teaches, training_environment
from pipelines.validate_text import WrittenValidation
from students.build import adapter_of, build_alone, from_folder, sources_of
from students.build import build as build_student
from students.student import Student
from teachers.remote import RemoteTeacher

MODEL = "model"


class Train(Stage[TrainStage]):
    """Train one model; ends with `model/`, a folder that transformers loads."""

    kind = "train"
    scratch = "checkpoints"
    _peak: Peak

    @property
    def _number(self) -> int:
        """The seed of all that is drawn."""
        return self._run.config.seed if self.seed is None else self.seed

    @cached_property
    def _teacher(self) -> StageTeacher:
        return StageTeacher(self._run, self.name, self.seed, self._config)

    def fingerprint(self) -> str:
        """Depend on the section, the task, the models and the rows."""
        run, config = self._run, self._config
        start = self._start_fingerprint()
        sources = [run.source_fingerprint(name) for name in (*config.data, *filter(None, [config.validation]))]
        # trainings from before there were such keys are still good
        unsaid = {key: True for key in ("top_k", "adapters") if not getattr(config, key)}
        left_out: dict[str, Any] = {"training": set(CHANGES_NOTHING), **unsaid}
        section = config.model_dump_json(exclude=left_out)
        learns = config.trains == "teacher"  # in fp32, whatever it will teach in
        teacher = fingerprint(run.base) if learns else run.teacher_fingerprint(self._teacher.kind)
        if config.cache is not None:
            sources.append(run.stage_fingerprint(config.cache, None))
        sources += adapter_fingerprints(config)
        words = run.words_fingerprint() if config.trains == "student" else ""
        task = run.config.task.key()
        return digest("train", section, task, start, teacher, words, str(self._number), *sources)

    def run(self, output: Path) -> dict[str, Any]:
        """Train, or go on with a training that was cut, and save the model; or only teach those that do."""
        if only_teaches(self._run.device):
            if self._teacher.is_apart:
                self._teacher.teach()
            return {}
        run, state = self._run, output / self.scratch / self.fingerprint()
        module, data = self.assemble()
        saved = newest(state, run.screen.warning)
        if not is_helper():
            clear_logs(output / "log", first=_step_of(saved))
        kept = kept_small(run, run.planned.get(self.name))
        with ProgressLine(run.console, self.title) as line, asking(module.teacher), kept:
            trainer = self.trainer(output, state, (module, data), line, first=_step_of(saved))
            trainer.fit(module, datamodule=data, ckpt_path=saved, weights_only=True)
            self._peak.end()
        has_model = trainer.is_global_zero or self._config.training.validate_texts > 0  # which all write together
        if has_model and self._config.training.keep == "best":
            load_best(state, module)
        trainer.strategy.barrier()  # once it is marked done the first process removes these files
        results = (self._results(module, data) if has_model else {}) | self._memory()
        if trainer.is_global_zero:
            self._save(cast(Student, module.student), output)
        return results

    def help(self, output: Path) -> None:
        """Train beside rank 0."""
        self.run(output)

    def assemble(self) -> tuple[DistillModule, DistillData]:
        """Build teacher, student, data and objective, and check that they fit; nothing is written or trained."""
        run, config = self._run, self._config
        self._peak = Peak()  # before a model is loaded
        torch.manual_seed(self._number)  # all that is new: heads, students, projectors
        loaded = self._teacher.load()
        student = self._student(loaded)
        teacher = self._teacher.beside(loaded, student)
        data = self._data()
        objective = build_objective(
            config.objective,
            student=student.shape,
            student_offers=student.offers,
            teacher=teacher,
            task=run.config.task,
            where=f"stages.{self.name}",
            allow_code=run.allow_code,
        )
        if isinstance(teacher, RemoteTeacher):
            data.announce = partial(teacher.ahead, needs=objective.teacher_needs)
        student.keep(config.training.freeze, f"stages.{self.name}.training.freeze")
        frozen = student.freeze_unused(data.probe(), objective.student_needs)
        run.screen.parts(student, teacher, objective, data, frozen)
        metrics = self._metrics(student)
        recipe = Recipe(config.training, data.plan.steps, self._number, self.fingerprint(), metrics, self._written())
        return DistillModule(student, teacher, objective, recipe), data

    @property
    def _precision(self) -> str:
        return self._run.device.precision(self._config.training.precision)

    def _student(self, loaded: Loaded | None) -> Student:
        run, config = self._run, self._config
        task, labels = run.config.task, run.labels
        if config.start != "fresh":
            folder = run.stage_folder(config.start, self.seed) / MODEL
            adapter = adapter_of(run.config.student) if config.trains == "student" else None
            return from_folder(ModelSource(str(folder)), task, labels, run.words(config.trains).tokenizer, adapter)
        if config.trains == "teacher":
            return Student(run.fresh_teacher().model, has_head=task.kind != "text")
        asked = run.config.student
        if loaded is None:
            return build_alone(asked, task, labels, run.student_words.config, self._number)
        if isinstance(asked, BaseStudent):
            loaded = run.fresh_teacher()
        return build_student(asked, task, labels, loaded, self._number)

    def _data(self) -> DistillData:
        run, config = self._run, self._config
        training = config.training
        check_gold(run, self.name, config)  # of rows that a stage before this one wrote, set-up could not know
        train = run.table(config.data, config.trains)
        validation = run.table((config.validation,), config.trains) if config.validation else None
        plan = plan_of(training, run.config.task, train, run.device.trainers, self._number)
        pad = run.words(config.trains).tokenizer.pad_token_id
        return DistillData(train, validation, plan, pad_id=pad, workers=training.workers)

    def _metrics(self, student: Student) -> Metrics | None:
        match self._run.config.task.kind:
            case "tagging" | "masked_lm" as kind:
                return TokenMetrics(kind, student.shape.outputs, self._run.labels)
            case "text":
                return None
            case "generation":
                return AnswerMetrics() if self._run.config.task.ranks else TargetMetrics()
            case kind:
                return TaskMetrics(kind, student.shape.outputs)

    def _written(self) -> WrittenValidation | None:
        run, config = self._run, self._config
        if config.validation is None or not config.training.validate_texts:
            return None
        references = by_source(run.rows(config.validation), config.validation)
        tokenizer = run.words(config.trains).tokenizer
        return WrittenValidation(references, config.training.validate_texts, tokenizer, run.config.task)

    def _judge(self) -> str:
        """Return the score that tells the best weights."""
        return f"validation/{validation_metric(self._run.config.task, texts=self._config.training.validate_texts > 0)}"

    def trainer(
        self, output: Path, state: Path, parts: tuple[DistillModule, DistillData], line: ProgressLine, first: int
    ) -> pl.Trainer:
        """Return Lightning's trainer for what was assembled: logs go under `output`, checkpoints under `state`, both
        from step `first` on.
        """
        training, run = self._config.training, self._run
        student, data = cast(Student, parts[0].student), parts[1]
        per_epoch = data.plan.steps_of(0)
        accumulate = data.plan.accumulate
        judge = self._judge() if training.keep == "best" else None
        saver = Checkpoints(state, training.checkpoint_every, judge, background=training.checkpoint_async)
        watch = Watch(training.watch, lambda shares: run.screen.shares(shares)) if training.watch != "off" else None
        check = None if watch is None else watch.hear
        log = LossLog(training.log_every, data.plan.steps, per_epoch, line.report, check)
        teacher, (nodes, devices) = parts[0].teacher, run.device.training_nodes
        elsewhere = (lambda: teacher.stopping) if isinstance(teacher, RemoteTeacher) else (lambda: 0)
        callbacks: list[pl.Callback] = [Beat(run.ranks), self._peak, *student.callbacks(), log]
        if watch is not None:
            callbacks.append(watch)  # before what saves: a checkpoint holds what it saw of the window
        callbacks += [saver, Stop(saver, elsewhere)]
        spread = self._spread(parts[0])
        if training.gradient_clip and not spread.clips:
            callbacks.append(Clip(training.gradient_clip))
        return pl.Trainer(
            accelerator=run.device.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=spread.strategy,
            precision=spread.precision,  # type: ignore[arg-type]
            max_steps=data.plan.steps,
            accumulate_grad_batches=accumulate,
            val_check_interval=_validation_interval(training, per_epoch, data.plan.steps) * accumulate,
            check_val_every_n_epoch=None,
            limit_val_batches=None if data.validation is not None else 0,
            logger=loggers(run.config.machine.loggers, output, first),
            callbacks=callbacks,
            plugins=[saver.io, training_environment(run.device)],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=min(50, data.plan.steps * accumulate),  # Lightning's own; ours is `log_every`
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=output,
        )

    def _spread(self, module: DistillModule) -> Spread:
        name, facts = strategy_of(self._run, self.name, self._config, cast(Student, module.student), module.objective)
        if name == "deepspeed_3" and self._run.config.machine.deepspeed.nvme is not None:
            build_for_disks(self._run.screen.warning)  # on hosts that set-up has not seen
        return build_strategy(name, self._config.training, own_disk(self._run), facts)

    def _results(self, module: DistillModule, data: DistillData) -> dict[str, Any]:
        """Score the final weights on the validation rows."""
        results: dict[str, Any] = {"steps": data.plan.steps, "rows": len(data.train.lengths)}
        if data.validation is not None and self._run.config.task.kind != "text":
            model = cast(Student, module.student).model
            results["validation"] = score_table(self._run, model, data.validation, side=self._config.trains)
            written = self._written()
            results["validation"] |= {} if written is None else written(module.student)
        if data.train.notes:
            results["notes"] = dict(data.train.notes)
        return results

    def _memory(self) -> dict[str, Any]:
        """Return the most bytes a device took, beside what was planned."""
        if self._peak.bytes is None:
            return {}
        planned = self._run.planned.get(self.name)
        return {"memory": {"planned": planned, "measured": self._peak.bytes}}

    def _save(self, student: Student, output: Path) -> None:
        with whole_folder(output / MODEL) as made:
            student.save(made, self._run.words(self._config.trains).tokenizer)

    def _start_fingerprint(self) -> str:
        run, config = self._run, self._config
        if config.start != "fresh":
            return run.stage_fingerprint(config.start, self.seed)
        if config.trains == "teacher":
            return "teacher"
        student = run.config.student
        given = [run.base] if isinstance(student, BaseStudent) else []
        return digest(student.model_dump_json(), *map(fingerprint, [*given, *sources_of(student)]))


def _validation_interval(training: Training, per_epoch: int, steps: int) -> int:
    if training.validate_every == 0:
        return steps
    return min(steps, max(1, round(training.validate_every * per_epoch)))


def _step_of(saved: Path | None) -> int:
    return 0 if saved is None else int(saved.stem.removeprefix("step-"))
