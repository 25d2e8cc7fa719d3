"""Who may write the texts: several models as one, and a model with an adapter in a folder of its own."""

import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import peft
import pyarrow.parquet as pq
import pytest
import torch

from configs.data import Task
from configs.decoding import Decoding
from distill.data.hashing import hash_text
from distill.data.rows import Rows
from distill.models import ModelSource, load
from teachers.record import TokenRecord, read_record
from teachers.text.huggingface import HuggingFaceWriter
from tests.helpers import pairs
from tests.helpers.writers import END, prompts, tokenizer, writer

DECODING = {"beams": 3, "max_tokens": 8}
STAGES = {
    "texts": {"kind": "generate", "data": ["alone"], "decoding": DECODING, "shard_characters": 200},
    "best": {"kind": "select", "generated": "texts", "filters": None},
}
SOURCES = list(dict.fromkeys(prompts(40)))


def folder_of(place: Path, seed: int, **changes: Any) -> Path:
    model = writer("pegasus", seed=seed, ends=(END,), **{"forced_eos_token_id": None, **changes})
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "alone.txt").write_text("\n".join(SOURCES), encoding="utf-8")
    alone = {"path": str(tmp_path / "alone.txt"), "format": "lines", "columns": {"target": None}}
    first = folder_of(tmp_path / "first", 4)
    folder_of(tmp_path / "second", 3)
    adapter = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(5)
    peft.get_peft_model(writer("pegasus").from_pretrained(first), adapter).save_pretrained(tmp_path / "adapter")
    return pairs.run_file(tmp_path, copy.deepcopy(STAGES), data={"alone": alone}, teacher={"model": str(first)})


def written(run: Path) -> dict[str, str]:
    chosen = pq.read_table(run.parent / "run/best/choices/choices.parquet").to_pydict()
    return dict(zip(chosen["source"], chosen["text"], strict=True))


def expected(*folders: Path) -> dict[str, str]:
    models = [load(ModelSource(str(folder)), Task(kind="generation"), (), "").model for folder in folders]
    found = dict(HuggingFaceWriter(models, tokenizer(), "x").generate(SOURCES, Decoding.model_validate(DECODING)))
    return {text: found[place].texts[0].text for place, text in enumerate(SOURCES)}


def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.parent / "run/texts/stage.json").read_text(encoding="utf-8"))
    return found


def test_an_ensemble_writes_as_one(call, run: Path) -> None:
    first, second = run.parent / "first", run.parent / "second"
    code, out, err = call("run", str(run), f"stages.texts.ensemble=[{second}]")
    assert code == 0, out + err
    told = results(run)["results"]
    assert told["engine"] == f"transformers, an ensemble: {first}, {second}"
    assert told["why"] == "CTranslate2 runs no ensembles"
    assert written(run) == expected(first, second) != expected(first)
    before = results(run)["fingerprint"]
    folder_of(second, 5)
    assert call("run", str(run), f"stages.texts.ensemble=[{second}]")[0] == 0
    assert results(run)["fingerprint"] != before and written(run) == expected(first, second)


def test_an_ensemble_says_at_every_token_of_its_texts_what_its_members_say_on_average(call, run: Path) -> None:
    first, second = run.parent / "first", run.parent / "second"
    joined = f"ensemble: [{second}]"
    code, out, err = call(
        "run", str(run), f"stages.texts.{joined.replace(': ', '=')}", "data.told={kind: stage, stage: best}",
        f"stages.soft={{kind: record, data: [told], top_k: 5, {joined}}}",
    )  # fmt: skip
    assert code == 0, out + err
    record = read_record(run.parent / "run/soft")
    told = Rows(pq.read_table(run.parent / "run/best/part-00000.parquet"))
    assert isinstance(record, TokenRecord) and len(record.ids) == len(told) > 30
    task, words, ours = Task(kind="generation"), tokenizer(), {}
    models = [load(ModelSource(str(folder)), task, (), "").model.eval() for folder in (first, second)]
    for row in told:
        asked = {**words(row.text, return_tensors="pt"), "labels": torch.tensor([words(row.target)["input_ids"]])}
        with torch.no_grad():
            mean = sum(model(**asked).logits[0].softmax(-1) for model in models) / 2
        ours[hash_text(str(row.id), row.target)] = mean.log().topk(5)
    for place, key in enumerate(record.ids.tolist()):
        here = slice(int(record.offsets[place]), int(record.offsets[place + 1]))
        torch.testing.assert_close(record.log_probs[here], ours[key].values, atol=1e-5, rtol=0)
        assert torch.equal(record.indices[here].long(), ours[key].indices)


def test_a_teacher_with_an_adapter_writes_with_it_whatever_decodes(call, run: Path) -> None:
    adapter = run.parent / "adapter"
    for engine in ("ctranslate2", "huggingface"):
        code, out, err = call("run", str(run), f"teacher.model={adapter}", f"stages.texts.engine={engine}")
        assert code == 0, out + err
        assert str(adapter) in results(run)["results"]["engine"]
        assert written(run) == expected(adapter) != expected(run.parent / "first")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["stages.texts.ensemble=[{0}/other]"], "stages.texts.ensemble.0: another vocabulary than the teacher's: 2 p"),
        (
            ["stages.texts.ensemble=[{0}/longer]"],
            "stages.texts.ensemble.0: teachers of an ensemble must agree in max_position_embeddings: 64 and 96",
        ),
        (
            ["stages.soft={{kind: record, data: [train], ensemble: [{0}/other]}}"],
            "stages.soft.ensemble.0: another vocabulary than the teacher's",
        ),
        (["stages.texts.ensemble=[{0}/none]"], "stages.texts.ensemble.0: folder"),
        (["stages.texts.ensemble=[{0}/second]", "stages.texts.engine=ctranslate2"], "`ensemble` and `engine: ctransl"),
        (
            ["teacher.model={0}/adapter", "stages.texts.teacher=base",
             "stages.learn={{kind: train, trains: teacher, teacher: none, data: [train], objective: "
             "[{{kind: task}}], training: {{epochs: 1}}}}"],
            "stages.learn.trains: {0}/adapter is an adapter, which teaches as it is; merge it first to train it furth",
        ),
    ],
)  # fmt: skip
def test_models_that_cannot_write_as_one_are_refused_at_set_up(
    call, run: Path, overrides: list[str], said: str
) -> None:
    folder_of(run.parent / "longer", 1, max_position_embeddings=96)
    other = folder_of(run.parent / "other", 1) / "tokenizer.json"
    swapped = other.read_text(encoding="utf-8").replace('"w3"', '"x"').replace('"w4"', '"w3"').replace('"x"', '"w4"')
    other.write_text(swapped, encoding="utf-8")
    code, _, err = call("check", str(run), *(one.format(run.parent) for one in overrides))
    assert code == 2 and said.format(run.parent) in " ".join(err.split())


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "texts/shards").glob("*.parquet")}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ctranslate2", "huggingface"])
def test_processes_that_are_killed_and_come_late_leave_the_table_of_one(call, run: Path, engine: str) -> None:
    """Two write, one is killed once there is a shard, a third comes then."""
    overrides = ["stages.texts.shard_characters=20", f"stages.texts.engine={engine}"]
    command = [str(Path(sys.executable).with_name("distill")), "generate", str(run), *overrides]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    until = time.monotonic() + 200
    while not shards(run.parent / "run") and time.monotonic() < until:
        time.sleep(0.002)
    workers[0].kill()
    workers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    for worker in workers:
        worker.communicate(timeout=200)
    assert [worker.returncode for worker in workers[1:]] == [0, 0]
    assert call("generate", str(run), *overrides, f"output={run.parent / 'alone'}")[0] == 0
    assert shards(run.parent / "run") == shards(run.parent / "alone")
    assert len(shards(run.parent / "run")) > 20
