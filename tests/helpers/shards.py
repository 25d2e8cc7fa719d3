"""Deal out a tiny teacher of each family over the processes of torch's launcher, and compare it with a live one.

python -m tests.helpers.shards FOLDER     writes rank-N.json there
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM

from configs.data import Task
from configs.teachers import ShardedTeacher as Choice
from distill.models import ModelSource, load
from distill.shells import shell
from distill.types import Outputs
from teachers.live import LiveTeacher
from teachers.sharded import ShardedTeacher, Weights
from tests.helpers import families, tiny

LARGE = "large"
BF16 = "bf16"


def write(folder: Path) -> None:
    """Write a model of each family."""
    for kind in families.FAMILIES:
        families.loaded(kind, seed=7).model.save_pretrained(folder / kind)
        tiny.tokenizer().save_pretrained(folder / kind)


def write_large(folder: Path) -> None:
    """Write a model large enough to be seen in a process's memory: 176 MB, in one file."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = AutoConfig.for_model("llama", vocab_size=10_000, tie_word_embeddings=False, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / LARGE)
    tiny.tokenizer().save_pretrained(folder / LARGE)


def load_large(folder: Path) -> dict[str, float]:
    """Deal the large model out; return the memory it takes, at most and in the end, as parts of its size."""
    task, source = Task(kind="generation"), ModelSource(str(folder / LARGE))
    facts = shell(source, task, (), "teacher.model")
    sizes = [parameter.numel() * 4 for parameter in facts.model.parameters()]
    size, largest = sum(sizes), max(sizes)
    choice = Choice(kind="sharded", model=source.path, dtype="float32")
    teacher = ShardedTeacher(facts, Weights(source, choice, torch.float32), task, "")
    before, seen, done = private(), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.005):
            seen.append(private())

    watcher = threading.Thread(target=look)
    watcher.start()
    teacher.to(torch.device("cpu"))
    done.set()
    watcher.join()
    return {"peak": (max(seen) - before) / size, "held": (private() - before) / size, "largest": largest / size}


def private() -> int:
    """Return the bytes of memory that are this process's own: no pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def compare(kind: str, folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Return how far a dealt-out teacher is from a live one, and what part of its weights this rank holds."""
    task, labels = families.task_of(kind), tuple(families.task_of(kind).labels or ())
    source = ModelSource(str(folder / kind))
    facts = shell(source, task, labels, "teacher.model")
    choice = Choice(kind="sharded", model=source.path, whole_below=0)
    teacher = ShardedTeacher(facts, Weights(source, choice, dtype), task, "")
    live = LiveTeacher(load(source, task, labels, "teacher.model", dtype), task, "")
    teacher.to(torch.device("cpu"))
    held, every = 0, 0
    for parameter in teacher.model.parameters():
        held += parameter.ds_tensor.numel() if parameter.data.numel() == 0 else parameter.numel()
        every += parameter.ds_numel
    batch = families.batch(kind)
    needs = live.offers
    pairs = [*zip(_tensors(teacher(batch, needs)), _tensors(live(batch, needs)), strict=True)]
    return {
        "gap": max(float((found - expected).abs().max()) for found, expected in pairs),
        "types": sorted({str(found.dtype) for found, _ in pairs}),
        "compared": len(pairs),
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
    found = {kind: compare(kind, folder) for kind in families.FAMILIES} | {LARGE: load_large(folder)}
    found |= {f"{kind} {BF16}": compare(kind, folder, torch.bfloat16) for kind in families.FAMILIES}
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
