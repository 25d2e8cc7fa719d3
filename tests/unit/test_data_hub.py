"""Folders written by `datasets`, and a hub that does not answer."""

import socket
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from configs.data import Columns, Files, Task
from distill.data.locate import locate
from distill.data.rows import Rows
from distill.data.sources import read
from distill.errors import DataError


def rows_of(path: Path | str, **fields: Any) -> Rows:
    return read("train", {"train": Files(path=str(path), **fields)}, Task(), stage_outputs={}, seed=0)


def problem(path: Path | str, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path, **fields)
    return str(caught.value)


def dataset(labels: list[int]) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"]), "other": Value("int64")})
    texts = [f"row {number}" for number in range(len(labels))]
    return Dataset.from_dict({"text": texts, "label": labels, "other": labels}, features=features)


def test_a_folder_gives_class_names(tmp_path: Path) -> None:
    dataset([1, 0]).save_to_disk(tmp_path / "saved")
    assert [(row.text, row.label) for row in rows_of(tmp_path / "saved")] == [("row 0", "good"), ("row 1", "bad")]


@pytest.mark.parametrize("names", [{"0": "poor", "1": "fine"}, {"bad": "poor", "good": "fine"}])
def test_classes_are_renamed_by_their_numbers_or_names(tmp_path: Path, names: dict[str, str]) -> None:
    dataset([1, 0]).save_to_disk(tmp_path / "saved")
    assert [row.label for row in rows_of(tmp_path / "saved", label_names=names)] == ["fine", "poor"]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    DatasetDict({"train": dataset([1, 0]), "test": dataset([1])}).save_to_disk(path)
    assert len(rows_of(path, split="test")) == 1
    assert problem(path) == f"data.train: {path} has several splits; name one in `split`. Choices: test, train"
    expected = f"data.train: split `tset` not in {path}; did you mean `test`? Choices: test, train"
    assert problem(path, split="tset") == expected


def test_secret_labels_are_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    dataset([1, -1]).save_to_disk(path)
    expected = f"data.train: {path} row 2: the row has no label; for rows without labels set `columns.label: null`"
    assert problem(path) == expected
    assert not rows_of(path, columns=Columns(label=None)).has_labels


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\none,1\n")
    expected = f"data.train: `datasets` did not write folder {tmp_path}; for the files in it write {tmp_path}/*.csv"
    assert problem(tmp_path) == expected
    lost = tmp_path / "lost"
    assert problem(lost, format="folder").startswith(f"data.train: {lost} not found")


def test_a_hub_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    expected = (
        "data.train: nobody/nothing is no file or folder here, and the hub (http://127.0.0.1:9) did not answer within "
        '3 s; fetch the data where it does (python -c "from datasets import load_dataset; '
        "load_dataset('nobody/nothing', 'en', revision='abc')\"), then set HF_HUB_OFFLINE=1"
    )
    assert problem("nobody/nothing", name="en", revision="abc") == expected


def test_a_hub_that_is_silent_is_given_three_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        assert "did not answer within 3 s" in problem("nobody/nothing")
        assert time.monotonic() - start < 4.5


def test_offline_without_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    text = problem("nobody/nothing")
    assert text.startswith("data.train: nobody/nothing: no file or folder here, nor a data set on the hub that can be ")
    command = "python -c \"from datasets import load_dataset; load_dataset('nobody/nothing')\""
    assert text.endswith(f"HF_HUB_OFFLINE is set; fetch the data where the hub answers: {command}")


@pytest.mark.parametrize(
    "path", ["./sst2", "/data/sst2", "~/sst2", "train.csv", "owner/train.jsonl.gz", "a/b/c", "*/x"]
)
def test_what_is_written_like_a_file_is_never_sought_on_the_hub(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"not found; |no file matches "):
        locate(Files(path=path))


def test_what_is_in_a_folder_here_is_never_sought_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"^data/sst2 not found; data is empty$"):
        locate(Files(path="data/sst2"))
    assert locate(Files(path="glue"))[0].format == "hub"
    assert locate(Files(path="owner/sst2"))[0].format == "hub"
