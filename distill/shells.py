"""Models without their weights: what can be known of a model that is too large to be loaded whole."""

import torch

from configs.data import Task
from distill import adapters
from distill.errors import ModelError
from distill.models import Loaded, ModelSource, auto_class, has_head, load_config, load_tokenizer, set_labels


def shell(
    source: ModelSource, task: Task, labels: tuple[str, ...], where: str, dtype: torch.dtype = torch.float32
) -> Loaded:
    """Return a model on torch's meta device, with its tokenizer. Raise ModelError on anything missing, for an adapter,
    and where the task's head does not come with the weights: nobody could train it.
    """
    if adapters.is_adapter(source.folder):
        raise ModelError(f"{where}: {source.path} is an adapter; merge it first (`distill adapters merge`)")
    config = load_config(source, where)
    own_head = has_head(config, task)
    if not own_head:
        if task.kind == "generation":
            made = ", ".join(config.architectures or ("an unnamed model",))
            raise ModelError(
                f"{where}: {source.path} is a {made}, which writes no text; the run's task is a generation"
            )
        set_labels(config, task, labels)
    with torch.device("meta"):
        model = auto_class(task, config).from_config(config, dtype=dtype)
    return Loaded(model.eval(), load_tokenizer(source, where), source.path, own_head and task.kind != "text")
