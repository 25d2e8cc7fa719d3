"""A causal teacher of 1.5 billion random weights: live, in fewer bits, and dealt out to the host's memory."""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks import report
from configs.data import Task
from configs.teachers import Bits
from configs.teachers import ShardedTeacher as Choice
from configs.training import Machine
from distill import memory
from distill.models import ModelSource, load
from distill.protocols import Teacher
from distill.quantised import Quantised
from distill.shells import shell
from distill.types import Batch, Needs
from pipelines.machine import Device, prepare, quiet
from teachers.live import LiveTeacher
from teachers.sharded import ShardedTeacher, Weights

VARIANTS: dict[str, Bits | None] = {"live": None, "int8": "int8", "nf4": "nf4", "offloaded": None}
SIZES = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
"""Qwen2-1.5B's."""
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
VOCABULARY, SMALL_VOCABULARY = 151_936, 500
LAPS = 2
"""Processes of each variant, by turns."""
TASK = Task(kind="generation")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 10
    rows: int = 8
    tokens: int = 512
    small: bool = False
    threads: int = 2


def run(options: Options, console: Console, path: Path) -> int:
    """Write the model, ask each variant in processes of its own, print, and write the JSON file."""
    device = _prepare(options)
    found: dict[str, Any] = {"options": asdict(options), "type": "bfloat16", "variants": {}}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        found["parameters"] = _write(Path(folder), small=options.small)
        for _ in range(LAPS):
            for name, done in laps.items():
                done.append(_ask(name, folder, options))
    for name, done in laps.items():
        found["variants"][name] = {key: statistics.median(lap[key] for lap in done) for key in done[0]} | {"laps": done}
    _table(console, found["variants"])
    report.write(path, found, [], device)
    return 0


def alone(name: str, folder: Path, options: Options) -> dict[str, float]:
    """Return tokens a second, and the bytes a variant holds and needs at most: of the GPU, or of this process."""
    device = torch.device(_prepare(options).torch_name)
    before = _used(device)
    teacher = _teacher(name, folder, device)
    teacher.to(device)
    vocabulary = SMALL_VOCABULARY if options.small else VOCABULARY
    ids = torch.randint(5, vocabulary, (options.rows, options.tokens), device=device)
    batch = Batch(input_ids=ids, attention_mask=torch.ones_like(ids), window_counts={}, progress=0.0, step=0)  # type: ignore[typeddict-item]
    loaded = _used(device) - before
    _pass(teacher, batch, device)  # warms up
    with memory.Highest(device) as highest:
        seconds = [_pass(teacher, batch, device) for _ in range(options.rounds)]
    return {
        "tokens_per_second": ids.numel() / statistics.median(seconds),
        "held_bytes": float(loaded),
        "peak_bytes": float((highest.bytes or 0) - before),
    }


def _pass(teacher: Teacher, batch: Batch, device: torch.device) -> float:
    began = time.perf_counter()
    teacher(batch, Needs(logits=True))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _prepare(options: Options) -> Device:
    quiet()
    return prepare(Machine(threads=options.threads, devices=1))


def _ask(name: str, folder: str, options: Options) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks", "large-alone", name, folder, json.dumps(asdict(options))]
    done = subprocess.run(command, cwd=report.ROOT, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(f"{name} could not be measured: {done.stderr.strip()[-800:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _teacher(name: str, folder: Path, device: torch.device) -> Teacher:
    source, dtype, bits = ModelSource(str(folder)), torch.bfloat16, VARIANTS[name]
    if name == "offloaded":
        choice = Choice(kind="sharded", model=source.path, offload="cpu")
        return ShardedTeacher(shell(source, TASK, (), "teacher", dtype), Weights(source, choice, dtype), TASK, "")
    quantised = None if bits is None else Quantised(bits, str(device))
    return LiveTeacher(load(source, TASK, (), "teacher", dtype, quantised=quantised), TASK, "")


def _write(folder: Path, *, small: bool) -> int:
    """Write a model and a tokenizer; return its parameters."""
    vocabulary = SMALL_VOCABULARY if small else VOCABULARY
    config = AutoConfig.for_model("qwen2", vocab_size=vocabulary, num_key_value_heads=2, **(SMALL if small else SIZES))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    core = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return int(model.num_parameters())


def _used(device: torch.device) -> int:
    gc.collect()
    return memory.in_use(device) or 0


def _table(console: Console, variants: dict[str, dict[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 2))
    for column in ("", "tokens/s", "held, GB", "peak, GB"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in variants.items():
        table.add_row(
            name, f"{one['tokens_per_second']:,.0f}", f"{one['held_bytes'] / 1e9:.2f}", f"{one['peak_bytes'] / 1e9:.2f}"
        )
    console.print(table)
