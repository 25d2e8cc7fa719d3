"""The work of the TinyBERT benchmark: BERT-base teaches a 4×312 student on rows of mean 25 tokens; no downloads."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerFast

from configs.load import load
from pipelines.machine import Device
from pipelines.run import Run
from pipelines.train import Train

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = "sizes.json"
LABELS = ("negative", "positive")
LONGEST = 128
MEAN_LENGTH = 25
BATCH = 32
TEMPERATURE = 4
HEADS = 12
LAYERS = {0: 0, 1: 3, 2: 6, 3: 9, 4: 12}
"""Student layer → teacher layer, 0 the embeddings' output: TinyBERT's map."""
BERT_BASE = {"layers": 12, "hidden_size": 768, "intermediate_size": 3072, "vocabulary": 30522}
TINYBERT = {"layers": 4, "hidden_size": 312, "intermediate_size": 1200, "heads": HEADS}

# The weight turns our mean into TextBrewer's. Its hidden and attention losses are means over what is unmasked (and over
# the width, the heads), as ours are over a window of one batch; its soft cross entropy carries no factor T², ours does.
TERMS: list[dict[str, Any]] = [
    {"kind": "hidden", "layers": LAYERS},
    {"kind": "attention", "layers": {own: taught for own, taught in LAYERS.items() if own}},
    {"kind": "logits", "divergence": "ce", "temperature": TEMPERATURE, "weight": 1 / TEMPERATURE**2},
    {"kind": "task"},
]
LAYERWISE: list[dict[str, Any]] = [
    {**term, "layers": {own: taught}} for term in TERMS[:2] for own, taught in term["layers"].items()
] + TERMS[2:]
"""The same objective with a term for each layer: eleven numbers to compare instead of four."""


@dataclass(frozen=True)
class Sizes:
    """How large the work is."""

    windows: int = 50
    """Windows of `BATCH` rows in the pool, all sorted by length together."""
    teacher: dict[str, int] = field(default_factory=lambda: dict(BERT_BASE))
    student: dict[str, int] = field(default_factory=lambda: dict(TINYBERT))
    seed: int = 0
    length: int | None = None
    """Tokens of every row; none draws them."""

    @property
    def rows(self) -> int:
        """Rows in the pool."""
        return self.windows * BATCH


SMALL = Sizes(
    windows=4,
    teacher={"layers": 12, "hidden_size": 96, "intermediate_size": 192, "vocabulary": 512},
    student={"layers": 4, "hidden_size": 48, "intermediate_size": 96, "heads": HEADS},
)
"""The same shape of work in seconds, to try the benchmark itself."""


@dataclass(frozen=True)
class Workload:
    """A folder with teacher, rows and a run for each variant."""

    folder: Path
    sizes: Sizes

    def stage(self, device: Device, name: str = "bench", **changes: Any) -> Train:
        """Return the train stage of this project that does the work, with changes to its section and its student."""
        loaded = load(self._run_file(name, changes))
        run = Run(loaded.pipeline, device, Console(quiet=True))
        section = loaded.pipeline.stages["bench"]
        return Train(run, "bench", section, 0)  # type: ignore[arg-type]

    def _run_file(self, name: str, changes: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.json"
        training = {"max_steps": 10_000, "batch_size": BATCH, "validate_every": 0} | changes.get("training", {})
        stage = {"kind": "train", "data": ["rows"], "objective": changes.get("objective", TERMS), "training": training}
        run = {
            "about": "The work of the benchmark.",
            "expect": "Speed; the weights are random.",
            "output": str(self.folder / "runs" / name),
            "task": {"max_length": LONGEST, "labels": list(LABELS)},
            "teacher": {"model": str(self.folder / "teacher")},
            "student": {"kind": "sizes", **self.sizes.student, "options": changes.get("options", {})},
            "data": {"rows": {"path": str(self.folder / "rows.csv")}},
            "stages": {"bench": stage},
        }
        path.write_text(json.dumps(run), encoding="utf-8")
        return path.rename(path.with_suffix(".yaml"))  # YAML is a superset of JSON


def write(folder: Path, sizes: Sizes) -> Workload:
    """Write teacher and rows, drawn from the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    words = sizes.teacher["vocabulary"] - len(SPECIAL)
    torch.manual_seed(sizes.seed)
    teacher = AutoModelForSequenceClassification.from_config(_bert(sizes.teacher))
    teacher.save_pretrained(folder / "teacher")
    _tokenizer(words).save_pretrained(folder / "teacher")
    draw = np.random.default_rng(sizes.seed)
    lines = [
        " ".join(f"w{word}" for word in draw.integers(words, size=length - 2)) + f",{LABELS[draw.integers(2)]}"
        for length in ([sizes.length] * sizes.rows if sizes.length else lengths(sizes.rows, sizes.seed))
    ]
    (folder / SIZES).write_text(json.dumps(asdict(sizes)), encoding="utf-8")
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    return Workload(folder, sizes)


def read(folder: Path) -> Workload:
    """Return a workload that was written before."""
    return Workload(folder, Sizes(**json.loads((folder / SIZES).read_text(encoding="utf-8"))))


def lengths(rows: int, seed: int) -> NDArray[np.int64]:
    """Return the tokens of each row, [CLS] and [SEP] included: log-normal, clipped to 5–128, mean 25.

    The quantiles of the distribution in a random order, not random draws: small pools have its shape too.
    """
    from scipy.stats import norm

    spread = norm.ppf((np.arange(rows) + 0.5) / rows)
    low, high = 0.0, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        drawn = np.clip(np.exp(middle + 0.6 * spread).round(), 5, LONGEST)
        low, high = (middle, high) if drawn.mean() < MEAN_LENGTH else (low, middle)
    return np.random.default_rng(seed).permutation(drawn.astype(np.int64))


def _bert(sizes: dict[str, int]) -> PretrainedConfig:
    return AutoConfig.for_model(
        "bert",
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=HEADS,
        intermediate_size=sizes["intermediate_size"],
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
    )


def _tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words w0, w1, …"""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(words))])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **roles)
