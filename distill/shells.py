"""Models without their weights: what can be known of a model before it is loaded, or that is too large to be."""

import warnings

import torch

from configs.data import Task
from distill import adapters, languages
from distill.errors import ModelError
from distill.heads import head_weights
from distill.models import (
    Loaded,
    ModelSource,
    auto_class,
    describing,
    has_head,
    load_config,
    load_tokenizer,
    resting_on,
    set_labels,
)


def shell(
    source: ModelSource, task: Task, labels: tuple[str, ...], where: str, dtype: torch.dtype = torch.float32
) -> Loaded:
    """Return a model on torch's meta device, with its tokenizer. Raise ModelError on anything missing, for an adapter,
    and where the task's head does not come with the weights: nobody could train it.
    """
    if adapters.is_adapter(source.folder):
        raise ModelError(f"{where}: {source.path} is an adapter; merge it first (`distill adapters merge`)")
    return outline(source, task, labels, where, dtype, weights=True)


def outline(
    source: ModelSource,
    task: Task,
    labels: tuple[str, ...],
    where: str,
    dtype: torch.dtype = torch.float32,
    *,
    trainable: bool = False,
    weights: bool = False,
) -> Loaded:
    """Return what `distill.models.load` returns, on torch's meta device: an adapter's folder too gives the model it
    belongs to inside it. Configuration and tokenizer have to be there, `weights` only where that is asked. Raise
    ModelError on anything missing.
    """
    body, described = resting_on(source, where), describing(source, where)
    config = load_config(described, where, weights=weights)
    own_head = has_head(config, task)
    if not own_head:
        if task.kind == "generation":
            made = ", ".join(config.architectures or ("an unnamed model",))
            raise ModelError(
                f"{where}: {source.path} is a {made}, which writes no text; the run's task is a generation"
            )
        set_labels(config, task, labels)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter.*")  # weights of an adapter go nowhere here
        model = auto_class(task, config).from_config(config, dtype=dtype)
        new = () if own_head else head_weights(model)
        if body is not source and source.folder is not None:
            model = adapters.attach(model, source.folder, where, trainable=trainable, below=source.below)
    words = load_tokenizer(described, where, weights=weights)
    languages.tell(words, task, where)
    return Loaded(model.eval(), words, source.path, own_head and task.kind != "text", new)
