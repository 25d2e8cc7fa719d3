"""How a model is trained, and on what machine."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.section import Section
from configs.strategies import DeepSpeed, Fsdp, StrategyName

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class Training(Section):
    """One training loop. A batch is what one optimiser step sees, over all devices and micro-batches."""

    epochs: PositiveFloat | None = None
    """Passes over the data; exactly one of `epochs` and `max_steps`. A fraction stops inside a pass."""
    max_steps: PositiveInt | None = None
    """Optimiser steps."""
    batch_size: PositiveInt = 32
    """Rows an optimiser step sees, over all devices."""
    micro_batch_size: PositiveInt | None = None
    """Rows one device takes at a time; none: its whole share at once. Changes memory, never the result. Every batch of
    `tokens_per_batch` is cut into as many parts as one of the shortest rows alone would need."""
    tokens_per_batch: PositiveInt | None = None
    """Padded tokens an optimiser step sees, over all devices, instead of `batch_size` rows."""
    bucket_window: PositiveInt = 50
    """Batches whose rows are sorted by length together; 1 keeps the shuffled order."""
    padding: Literal["dynamic", "fixed"] = "dynamic"
    """Pad to the longest row of the batch, or always to the task's `max_length`."""
    learning_rate: PositiveFloat = 5e-5
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    """Course of the learning rate after the warm-up; `inverse_sqrt`: √(warm-up steps / step) (Vaswani et al. 2017)."""
    warmup: Fraction = 0.1
    """Part of the steps over which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.01
    """Not applied to biases and norms."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    gradient_clip: NonNegativeFloat = 1.0
    """Norm to which the gradient of student and projectors together is cut; 0 leaves it."""
    freeze: tuple[str, ...] = ()
    """Parts of the trained model that stay as they are: `embeddings` (of tokens, positions, segments), `encoder` and
    `decoder` of a model that has both, or whatever the names of its weights begin with, as `model.decoder.layers.0`.
    What is tied to a part stays with it."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """`bf16` and `fp16` are autocast: weights, softmaxes and losses stay in fp32. `auto` is bf16 where the
    processor computes in it, fp32 elsewhere."""
    keep: Literal["last", "best"] = "last"
    """Weights the stage ends with: after the last step, or best on the validation rows."""
    validate_every: Fraction = 1.0
    """Part of an epoch between two validations; 0 validates at the end only, where there is one in any case."""
    validate_texts: NonNegativeInt = 0
    """`generation` only: how many validation sources, chosen by a hash, texts are written for at each validation,
    greedily. Their score by the task's metric then tells the best weights, and the best repeat; 0: how likely the
    targets are."""
    checkpoint_every: PositiveInt = 500
    """Optimiser steps between two checkpoints."""
    checkpoint_async: bool = False
    """Write checkpoints beside the training: a step waits for a copy in the host's memory alone, as large as the file.
    Under every strategy rank 0 writes."""
    log_every: PositiveInt = 20
    """Optimiser steps between two rows of the log."""
    strategy: StrategyName | None = None
    """How this training is spread over devices; none: as `machine.strategy` says."""
    workers: NonNegativeInt = 0
    """Processes that pad batches ahead."""
    watch: Literal["error", "warn", "off"] = "error"
    """What to do about a term that is dead (zero, constant, without gradient) at the first steps, or NaN or infinite at
    any; later ones are looked at every `log_every` steps."""

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("exactly one of `epochs` and `max_steps` must be given")
        return self


CHANGES_NOTHING = frozenset(
    {"checkpoint_every", "checkpoint_async", "log_every", "workers", "watch", "micro_batch_size", "strategy"}
)
"""What a training may be told without becoming another one."""


class Machine(Section):
    """The devices to run on, and where the logs go."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    nodes: PositiveInt | Literal["auto"] = 1
    """Hosts; `auto`: those on which torchrun or srun started processes."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """Devices (on CPU: processes) of one host; `auto` takes what torchrun or srun started there; without them every
    GPU, or one CPU process."""
    strategy: StrategyName = "auto"
    """How trainings are spread over devices. `auto`: one device as it is, several by `ddp`, which keeps all of the
    student on each. DeepSpeed's stages cut up the optimiser's state (1), its gradients too (2), its weights too (3),
    as `fsdp` does. Changes memory and speed, never the result."""
    deepspeed: DeepSpeed = DeepSpeed()
    fsdp: Fsdp = Fsdp()
    teachers: NonNegativeInt = 0
    """Devices of all that only teach, the last ones: they run the teacher and answer the others, which train. 0: each
    device that trains runs the teacher too. Changes memory and speed, never the result."""
    timeout: PositiveInt = 1800
    """Seconds after which a process that the others wait for counts as lost, and ends the run."""
    threads: PositiveInt | Literal["auto"] = "auto"
    """Threads of one process; `auto`: the cores this process may use, shared among the local processes."""
    fast_fp32: bool = True
    """CPU: send fp32 matrix products to oneDNN where a check at start shows it as exact as the default."""
    loggers: tuple[Literal["csv", "tensorboard", "wandb", "mlflow"], ...] = ("csv", "tensorboard")
