"""`distill adapters …` on real folders: list, show, merge, export, import."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from configs.adapters import Adapter, AnyAdapter, Bottleneck, Experts, Lora
from configs.data import Task
from distill import adapted_model, adapters
from distill.models import ModelSource, load
from students.adapters.build import build
from tests.golden.test_adapterhub import NEAR, ROOT, distance
from tests.helpers import sentences, tiny

Call = Callable[..., tuple[int, str, str]]
TASK = Task(labels=tiny.LABELS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("adapters") / "base")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded BERT, with a tokenizer of as many pieces as it has."""
    folder = Path(shutil.copytree(ROOT / "bert" / "base", tmp_path_factory.mktemp("golden") / "base"))
    tiny.tokenizer().save_pretrained(folder)
    return folder


def adapter(folder: Path, base: Path, section: AnyAdapter, task: Task = TASK) -> Path:
    """Write an adapter with drawn weights."""
    loaded = load(ModelSource(str(base)), task, tiny.LABELS, "a test")
    torch.manual_seed(1)
    model = build(section, loaded, task)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapters.save(model, folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(5, 25).reshape(2, 10)).logits
    return found


def language_below(folder: Path) -> Bottleneck:
    return Bottleneck(kind="bottleneck", place="pfeiffer", size=4, on=(str(folder),))


def shown(out: str) -> dict[str, str]:
    """Read a table of two columns."""
    return dict(re.split(r"  +", line.strip(), maxsplit=1) for line in out.splitlines() if "  " in line.strip())


def test_list_names_each_adapter_with_what_it_stands_on(tmp_path: Path, base: Path, call: Call) -> None:
    adapter(tmp_path / "deep" / "low", base, Lora(kind="lora", rank=2))
    language = adapter(tmp_path / "language", base, Bottleneck(kind="bottleneck", place="pfeiffer", size=4))
    adapter(tmp_path / "task", base, language_below(language))
    code, out, err = call("adapters", "list", str(tmp_path))
    assert code == 0, err
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:] if line.strip()}
    assert set(rows) == {"deep/low", "language", "task"}
    assert rows["deep/low"][0] == "lora" and rows["task"][0] == "bottleneck"
    assert rows["task"][-1] == "below_0" and rows["language"][-1] == "–"
    stored = load_file(tmp_path / "deep" / "low" / "adapter_model.safetensors")
    assert f"{sum(tensor.numel() for tensor in stored.values()) / 1e3:.3g} k" in " ".join(rows["deep/low"])


def test_show_says_it_in_the_words_of_a_configuration(tmp_path: Path, base: Path, call: Call) -> None:
    houlsby = Bottleneck(kind="bottleneck", size=4, activation="relu", leave_out=(1,))
    code, out, err = call("adapters", "show", str(adapter(tmp_path / "a", base, houlsby)))
    assert code == 0, err
    said = shown(out)
    assert said["kind"] == "bottleneck" and said["place"] == "houlsby" and said["size"] == "4"
    assert said["activation"] == "relu" and said["leave_out"] == "1"
    assert said["mergeable"] == "no: a bottleneck is no linear change of the weights"
    assert said["parameters: method"] == f"{3 * 2 * (2 * 4 * 32 + 32 + 4) / 1e3:.3g} k"
    assert said["parameters: norms"] == "576" and said["parameters: whole modules"] == "66"
    code, out, _ = call("adapters", "show", str(adapter(tmp_path / "b", base, Lora(kind="lora", rank=2, dora=True))))
    said = shown(out)
    assert (said["kind"], said["rank"], said["dora"], said["mergeable"]) == ("lora", "2", "True", "yes")
    assert said["targets"] == "attention.self.query, attention.self.value"


def test_list_and_show_load_no_torch(tmp_path: Path, base: Path) -> None:
    folder = adapter(tmp_path / "a", base, Lora(kind="lora", rank=2))
    code = (
        "import sys\n"
        "from pipelines.adapters_cli import list_adapters, show\n"
        "from pathlib import Path\n"
        f"list_adapters(Path({str(tmp_path)!r})), show(Path({str(folder)!r}))\n"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


MERGED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "adalora": {"rank": 2, "initial_rank": 4},
    "ia3": {},
    "norms": {},
    "bitfit": {},
    "top_layers": {"layers": 1},
    "peft": {"method": "vera"},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bottleneck": ({"size": 4}, "cannot be merged: a bottleneck is no linear change of the weights"),
    "prefix": ({"tokens": 2, "width": None}, "cannot be merged: learned keys and values have no place in the weights"),
    "prompt": ({"tokens": 2}, "cannot be merged: learned tokens have no place in the weights"),
    "peft": ({"method": "lily"}, "This method is not supported for Lily"),
}


def section(kind: str, given: dict[str, Any]) -> AnyAdapter:
    found: AnyAdapter = TypeAdapter(Adapter).validate_python({"kind": kind, **given})
    return found


@pytest.mark.filterwarnings("ignore:Unsupported layer type")  # peft of the normalisations it is told to train
@pytest.mark.parametrize("kind", MERGED)
def test_merge_writes_the_plain_model_that_computes_the_same(tmp_path: Path, base: Path, call: Call, kind: str) -> None:
    folder = adapter(tmp_path / "a", base, section(kind, MERGED[kind]))
    code, out, err = call("adapters", "merge", str(folder), str(tmp_path / "merged"))
    assert code == 0 and "largest difference" in out, err
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    adapted = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base), folder)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-5, rtol=1e-5)
    assert (logits(merged) - logits(AutoModelForSequenceClassification.from_pretrained(base))).abs().max() > 1e-3
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(tiny.tokenizer())


@pytest.mark.parametrize("kind", REFUSED)
def test_merge_refuses_what_weights_cannot_take_in(tmp_path: Path, base: Path, call: Call, kind: str) -> None:
    given, reason = REFUSED[kind]
    folder = adapter(tmp_path / "a", base, section(kind, given))
    code, _, err = call("adapters", "merge", str(folder), str(tmp_path / "merged"))
    assert code == 2 and reason in err and "Traceback" not in err
    assert not (tmp_path / "merged").exists()


def test_export_stands_alone(tmp_path: Path, base: Path, call: Call) -> None:
    language = adapter(tmp_path / "language", base, Bottleneck(kind="bottleneck", place="pfeiffer", size=4))
    folder = adapter(tmp_path / "task", base, language_below(language))
    (folder / "tokenizer.json").unlink()  # as peft alone leaves it
    before = logits(load(ModelSource(str(folder)), TASK, tiny.LABELS, "a test").model)
    code, _, err = call("adapters", "export", str(folder), str(tmp_path / "out"))
    assert code == 0, err
    shutil.rmtree(language)
    shutil.rmtree(folder)
    assert torch.equal(logits(load(ModelSource(str(tmp_path / "out")), TASK, tiny.LABELS, "a test").model), before)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| place | pfeiffer |" in card and "attach(base" in card
    snippet = card.split("```python\n")[1].split("```")[0]
    assert compile(snippet, "card", "exec")


def test_export_turns_the_knob_of_experts(tmp_path: Path, base: Path, call: Call) -> None:
    folder = adapter(tmp_path / "task", base, Experts(kind="experts", experts=2, size=4))

    def states(share: str) -> torch.Tensor:
        code, _, err = call("adapters", "export", str(folder), str(tmp_path / share), "--original", share)
        assert code == 0, err
        model = adapted_model.transformer(load(ModelSource(str(tmp_path / share)), TASK, tiny.LABELS, "a test").model)
        with torch.no_grad():
            found: torch.Tensor = model.eval().base_model(torch.arange(5, 25).reshape(2, 10)).last_hidden_state
        return found

    adapted, half, original = map(states, ("0", "0.5", "1"))
    plain = load(ModelSource(str(base)), TASK, tiny.LABELS, "a test").model.eval()
    with torch.no_grad():
        assert torch.equal(original, plain.base_model(torch.arange(5, 25).reshape(2, 10)).last_hidden_state)
    torch.testing.assert_close(half, (adapted + original) / 2)
    assert (adapted - original).abs().max() > 0.1
    assert shown(call("adapters", "show", str(tmp_path / "0.5"))[1])["original"] == "0.5"
    for other, said in ((Lora(kind="lora", rank=2), "has no experts"), (KEPT["export"], "the adapter has no experts")):
        name = adapter(tmp_path / other.kind, base, other)
        code, _, err = call("adapters", "export", str(name), str(tmp_path / "no"), "--original", "0.5")
        assert code == 2 and f"error: --original: {name}" in err and said in err.replace("\n", " "), err


CLASSES = {"tagging": "BertForTokenClassification", "masked_lm": "BertForMaskedLM"}
KEPT = {
    "merge": Lora(kind="lora", rank=4),
    "export": Bottleneck(kind="bottleneck", place="pfeiffer", size=4, invertible=2),
}


@pytest.mark.parametrize("command", KEPT)
@pytest.mark.parametrize("kind", CLASSES)
def test_an_adapter_keeps_the_head_of_its_task(tmp_path: Path, call: Call, kind: str, command: str) -> None:
    base, task = sentences.masked_model(tmp_path / "base"), Task(kind=kind, labels=tiny.LABELS)  # type: ignore[arg-type]
    folder = adapter(tmp_path / "a", base, KEPT[command], task)
    before = logits(load(ModelSource(str(folder)), task, tiny.LABELS, "a test").model)
    code, _, err = call("adapters", command, str(folder), str(tmp_path / "out"))
    assert code == 0, err
    again = load(ModelSource(str(tmp_path / "out")), task, tiny.LABELS, "a test")
    assert again.trained_head and not again.new
    torch.testing.assert_close(logits(again.model), before, atol=1e-5, rtol=1e-5)
    written = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert written["architectures"] == [CLASSES[kind]]


def test_import_takes_an_adapter_of_adapterhubs_over(tmp_path: Path, golden: Path, call: Call) -> None:
    source = ROOT / "bert" / "pfeiffer_head" / "task"
    code, out, err = call("adapters", "import", str(source), str(tmp_path / "out"), "--base", str(golden))
    assert code == 0 and "wrote" in out, err
    model = load(ModelSource(str(tmp_path / "out")), Task(), ("LABEL_0", "LABEL_1", "LABEL_2"), "a test").model.eval()
    assert distance(model, ROOT / "bert" / "pfeiffer_head") <= NEAR
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "MODULAR" and config["base_model_name_or_path"] == str(golden)


def test_import_keeps_the_inverse_of_a_language(tmp_path: Path, call: Call) -> None:
    base = Path(shutil.copytree(ROOT / "bert_masked_lm" / "base", tmp_path / "base"))
    tiny.tokenizer().save_pretrained(base)
    case = ROOT / "bert_masked_lm" / "pfeiffer_inv_head"
    code, _, err = call("adapters", "import", str(case / "task"), str(tmp_path / "out"), "--base", str(base))
    assert code == 0, err
    model = load(ModelSource(str(tmp_path / "out")), Task(kind="masked_lm"), (), "a test").model.eval()
    assert distance(model, case) <= NEAR


def test_import_opens_a_head_of_tags_as_one(tmp_path: Path, golden: Path, call: Call) -> None:
    source = Path(shutil.copytree(ROOT / "bert" / "pfeiffer_head" / "task", tmp_path / "task"))
    path = source / "head_config.json"
    head = json.loads(path.read_text(encoding="utf-8")) | {"model_class": "BertForTokenClassification"}
    path.write_text(json.dumps(head), encoding="utf-8")
    code, _, err = call("adapters", "import", str(source), str(tmp_path / "out"), "--base", str(golden))
    assert code == 0, err
    labels = ("LABEL_0", "LABEL_1", "LABEL_2")
    loaded = load(ModelSource(str(tmp_path / "out")), Task(kind="tagging"), labels, "a test")
    assert loaded.trained_head
    ids = torch.arange(5, 17).reshape(2, 6)
    with torch.no_grad():
        found: Any = loaded.model.eval()(input_ids=ids, output_hidden_states=True)
    weights = load_file(source / "model_head.safetensors")
    wanted = found.hidden_states[-1] @ weights["classifier.weight"].T + weights["classifier.bias"]
    torch.testing.assert_close(found.logits, wanted)


@pytest.mark.parametrize("case", ["t5/compacter", "bart/mam", "gpt2/lora", "llama/ia3"])
def test_import_serves_models_that_write(tmp_path: Path, call: Call, case: str) -> None:
    family, _ = case.split("/")
    base = Path(shutil.copytree(ROOT / family / "base", tmp_path / "base"))
    tiny.tokenizer().save_pretrained(base)
    code, _, err = call("adapters", "import", str(ROOT / case / "task"), str(tmp_path / "out"), "--base", str(base))
    assert code == 0, err
    model = load(ModelSource(str(tmp_path / "out")), Task(kind="generation"), (), "a test").model.eval()
    assert distance(model, ROOT / case) <= NEAR
    assert model.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=2).shape[0] == 1  # type: ignore[operator]


def test_import_takes_stacks_and_fusions_over(tmp_path: Path, golden: Path, call: Call) -> None:
    bert = ROOT / "bert"
    stack = (str(bert / "stack" / "task"), "--on", str(bert / "stack" / "language"))
    for name, arguments in {"stack": stack, "fusion": (str(bert / "fusion" / "fusion"),)}.items():
        first, *rest = arguments
        code, _, err = call("adapters", "import", first, str(tmp_path / name), "--base", str(golden), *rest)
        assert code == 0, err
        model = load(ModelSource(str(tmp_path / name)), Task(), (), "a test").model.eval()
        assert distance(model, bert / name) <= NEAR


def test_import_names_what_it_cannot_take_over(tmp_path: Path, golden: Path, call: Call) -> None:
    source = ROOT / "bert" / "unipelt" / "task"
    code, _, err = call("adapters", "import", str(source), str(tmp_path / "out"), "--base", str(golden))
    assert code == 2 and "use_gating: True cannot be taken over" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_or_taken_is_refused(tmp_path: Path, base: Path, call: Call) -> None:
    code, _, err = call("adapters", "show", str(base))
    assert code == 2 and "no adapter; an adapter's folder holds adapter_config.json" in err
    code, _, err = call("adapters", "show", str(ROOT / "bert" / "houlsby" / "task"))
    assert code == 2 and "`distill adapters import` takes it over" in err
    folder = adapter(tmp_path / "a", base, Lora(kind="lora", rank=2))
    code, _, err = call("adapters", "merge", str(folder), str(base))
    assert code == 2 and "is there already" in err and (base / "model.safetensors").is_file()
