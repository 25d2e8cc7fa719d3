"""Deal out a tiny teacher of each family over the processes of torch's launcher, and compare it with a live one.

python -m tests.helpers.shards FOLDER     writes rank-N.json there
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from configs.teachers import ShardedTeacher as Choice
from distill.models import ModelSource, load
from distill.shells import shell
from distill.types import Outputs
from teachers.live import LiveTeacher
from teachers.sharded import ShardedTeacher, Weights
from tests.helpers import families, tiny


def write(folder: Path) -> None:
    """Write a model of each family."""
    for kind in families.FAMILIES:
        families.loaded(kind, seed=7).model.save_pretrained(folder / kind)
        tiny.tokenizer().save_pretrained(folder / kind)


def compare(kind: str, folder: Path) -> dict[str, Any]:
    """Return how far a dealt-out teacher is from a live one, and what part of its weights this rank holds."""
    task, labels = families.task_of(kind), tuple(families.task_of(kind).labels or ())
    source = ModelSource(str(folder / kind))
    facts = shell(source, task, labels, "teacher.model")
    choice = Choice(kind="sharded", model=source.path, dtype="float32", whole_below=0)
    teacher = ShardedTeacher(facts, Weights(source, choice, torch.float32), task, "")
    live = LiveTeacher(load(source, task, labels, "teacher.model"), task, "")
    teacher.to(torch.device("cpu"))
    held, every = 0, 0
    for parameter in teacher.model.parameters():
        held += parameter.ds_tensor.numel() if parameter.data.numel() == 0 else parameter.numel()
        every += parameter.ds_numel
    batch = families.batch(kind)
    needs = live.offers
    gaps = [
        float((found - expected).abs().max())
        for found, expected in zip(_tensors(teacher(batch, needs)), _tensors(live(batch, needs)), strict=True)
    ]
    return {
        "gap": max(gaps),
        "compared": len(gaps),
        "held": held / every,
        "same shape": teacher.shape == live.shape,
        "same offers": teacher.offers == live.offers,
    }


def _tensors(outputs: Outputs) -> list[torch.Tensor]:
    found = [] if outputs.logits is None else [outputs.logits]
    for inside in (outputs, outputs.decoder, outputs.cross):
        found += [*inside.hidden_states.values(), *inside.attentions.values()]
        found += [head for heads in inside.relations.values() for head in (heads.query, heads.key, heads.value)]
    return found


def main() -> None:
    """Compare all families."""
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    found = {kind: compare(kind, folder) for kind in families.FAMILIES}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
