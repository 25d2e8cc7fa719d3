"""Corpora are cut as the recipes say: no sentence of a test is learnt from."""

import gzip
from pathlib import Path
from zipfile import ZipFile

from benchmarks.__main__ import main


def _prepare(monkeypatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "prepare", *map(str, arguments)])
    assert main() == 0


def test_no_english_sentence_of_tatoeba_is_in_two_parts(tmp_path, monkeypatch):
    pairs = [f"Sentence {number // 2}.\tSatz {number}.\tCC-BY 2.0" for number in range(1000)]
    with ZipFile(tmp_path / "deu-eng.zip", "w") as packed:
        packed.writestr("deu.txt", "\n".join([*pairs, ""]))
    _prepare(monkeypatch, "tatoeba", tmp_path / "deu-eng.zip", tmp_path / "made")
    parts = [
        (tmp_path / "made" / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        for part in ("train", "dev", "test")
    ]
    assert sorted(line for part in parts for line in part) == sorted(pair.rpartition("\t")[0] for pair in pairs)
    train, dev, test = ({line.split("\t")[0] for line in part} for part in parts)
    assert not (train & dev or train & test or dev & test) and len(train) > 450 and dev and test


def test_plain_swahili_is_without_the_sentences_that_are_tested_on(tmp_path, monkeypatch):
    test = "Shujaa O\nJohn B-PER\nLewis I-PER\n. O\n\n\nHabari O\nya O\nleo O\n"
    plain = "Shujaa John Lewis.\nShujaa John.\nHabari ya leo!\nHabari ya jana.\n"
    for name, text in {"test": test, "unlabelled_voa_swahili": plain}.items():
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt", encoding="utf-8") as file:
            file.write(text)
    _prepare(monkeypatch, "swahili", tmp_path, tmp_path / "made")
    assert (tmp_path / "made/plain.txt").read_text(encoding="utf-8") == "Shujaa John.\nHabari ya jana.\n"
