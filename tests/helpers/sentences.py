"""Sentences for taggers: a word's class follows from its first letter, so that a small model can learn it."""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from tests.helpers import tiny

PARTS = ("ADJ", "NOUN", "VERB")
NAMES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


def part_of_speech(word: str) -> str:
    """Return the class of a word."""
    return PARTS[["bdfg", "klmn", "prst"].index(next(run for run in ("bdfg", "klmn", "prst") if word[0] in run))]


def names(words: list[str]) -> list[str]:
    """Return IOB2 tags: words with b are people, with d places, next to each other they are one name."""
    kinds = {"b": "PER", "d": "LOC"}
    found, before = [], "O"
    for word in words:
        kind = kinds.get(word[0], "O")
        found.append("O" if kind == "O" else f"{'I' if kind == before else 'B'}-{kind}")
        before = kind
    return found


def drawn(count: int, seed: int = 0) -> list[list[str]]:
    """Draw sentences."""
    draw = random.Random(seed)
    return [[draw.choice(tiny.WORDS) for _ in range(draw.randint(2, 12))] for _ in range(count)]


def conllu_file(path: Path, count: int, seed: int = 0) -> Path:
    """Write words with their parts of speech."""
    blocks = [
        "\n".join(f"{n}\t{word}\t_\t{part_of_speech(word)}\t_\t_\t_\t_\t_\t_" for n, word in enumerate(sentence, 1))
        for sentence in drawn(count, seed)
    ]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def names_file(path: Path, count: int, seed: int = 0) -> Path:
    """Write words with IOB2 tags."""
    blocks = ["\n".join(f"{w} {t}" for w, t in zip(s, names(s), strict=True)) for s in drawn(count, seed)]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def text_file(path: Path, count: int, seed: int = 0) -> Path:
    """Write running text, a sentence a line."""
    path.write_text("\n".join(" ".join(sentence) for sentence in drawn(count, seed)) + "\n", encoding="utf-8")
    return path


def run_file(folder: Path, stages: dict[str, Any], *, what: str = "parts", **top: Any) -> Path:
    """Write a run of taggers over a body without a head: parts of speech, or names."""
    folder.mkdir(parents=True, exist_ok=True)
    write, end = (conllu_file, "conllu") if what == "parts" else (names_file, "iob2")
    columns = {"columns": {"words": "form", "tags": "upos"}} if what == "parts" else {}
    data = {
        name: {"path": str(write(folder / f"{name}.{end}", count, seed)), **columns}
        for name, count, seed in (("train", 96, 0), ("validation", 40, 1))
    }
    body = tiny.model_folder(folder / "body", head=False, seed=1, num_hidden_layers=2)
    given = {"task": {"kind": "tagging", "max_length": 24}, "teacher": {"model": str(body)}, "data": data}
    return tiny.run_file(folder, stages, **(given | top))


def masked_model(folder: Path) -> Path:
    """Write a tiny BERT with its head."""
    tiny.model_folder(folder, head=False, seed=1, num_hidden_layers=2)
    torch.manual_seed(2)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    return folder


def text_run_file(folder: Path, stages: dict[str, Any], **top: Any) -> Path:
    """Write a run over plain text."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        name: {"path": str(text_file(folder / f"{name}.txt", count, seed))}
        for name, count, seed in (("train", 300, 0), ("validation", 100, 1))
    }
    given = {
        "task": {"kind": "masked_lm", "max_length": 32},
        "teacher": {"model": str(masked_model(folder / "model"))},
        "data": data,
    }
    return tiny.run_file(folder, stages, **(given | top))
