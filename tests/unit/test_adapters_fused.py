"""A fusion sits where its members do, and only there."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from configs.adapters import AnyAdapter, Bottleneck, Fusion, MixAndMatch
from configs.data import Task
from distill import adapters
from distill.errors import ModelError
from students.adapters.build import build
from tests.helpers.families import batch, draw, last_states, loaded, task_of


def built(section: AnyAdapter, kind: str) -> PeftModel:
    return build(section, loaded(kind), task_of(kind)).eval()


def member(folder: Path, kind: str, **numbers: object) -> str:
    adapters.save(built(Bottleneck.model_validate({"kind": "bottleneck", "size": 4, **numbers}), kind), folder)
    return str(folder)


def learnt(section: dict[str, object], kind: str) -> PeftModel:
    """A bottleneck that says something."""
    model = built(Bottleneck.model_validate({"kind": "bottleneck", "size": 4, **section}), kind)
    draw(model, std=0.3)
    return model


def fuse(kind: str, first: str, second: str, names: tuple[str, str] = ("first", "second")) -> PeftModel:
    return built(Fusion(kind="fusion", of=dict(zip(names, (first, second), strict=True))), kind)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_layers_that_the_members_leave_out_have_no_attention(tmp_path: Path, kind: str) -> None:
    settings = {"place": "pfeiffer", "leave_out": (0,)}
    model = fuse(kind, member(tmp_path / "a", kind, **settings), member(tmp_path / "b", kind, **settings))
    inputs = {name: tensor for name, tensor in batch(kind).items() if name != "labels"}
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()
    assert sum(name.endswith("default.query.weight") for name, _ in model.named_parameters()) == 1


@pytest.mark.parametrize("other", [{"leave_out": (1,)}, {"place": "parallel"}, {"place": "houlsby", "norms": False}])
def test_members_at_other_places_or_of_another_form_are_refused(tmp_path: Path, other: dict[str, object]) -> None:
    first = member(tmp_path / "a", "gpt2", place="pfeiffer")
    with pytest.raises(ModelError, match=r"student\.adapter\.of: the adapters sit at different places, or enter there"):
        fuse("gpt2", first, member(tmp_path / "b", "gpt2", **{"place": "pfeiffer", **other}))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_members_come_from_tasks_with_other_classes_and_leave_their_heads_behind(tmp_path: Path, kind: str) -> None:
    task = Task(kind="classification", labels=("a", "b", "c", "d", "e"))
    section = Bottleneck(kind="bottleneck", place="pfeiffer", size=4)
    members = [tmp_path / name for name in ("five", "more")]
    for seed, folder in enumerate(members):
        adapters.save(build(section, loaded(kind, seed=seed, task=task), task), folder)
    model = fuse(kind, *map(str, members))
    weights = load_file(members[1] / "adapter_model.safetensors")
    held = dict(model.named_parameters())
    inside = [name for name in weights if ".down.weight" in name]
    assert inside and any("classifier" in name for name in weights)
    for name in inside:
        key = name.replace(".down.weight", ".second.down.weight")
        torch.testing.assert_close(held[key], weights[name], atol=0, rtol=0)
    inputs = {name: tensor for name, tensor in batch(kind).items() if name != "labels"}
    with torch.no_grad():
        assert model(**inputs).logits.shape == (3, 2)


FUSIBLE: dict[str, dict[str, object]] = {
    "Pfeiffer": {"place": "pfeiffer"},
    "Houlsby": {"place": "houlsby", "norms": False},
    "parallel": {"place": "parallel"},
    "Compacter": {"place": "pfeiffer", "kronecker": 2},
}


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("section", FUSIBLE.values(), ids=FUSIBLE)
def test_fusing_an_adapter_with_itself_gives_that_adapter(
    tmp_path: Path, kind: str, section: dict[str, object]
) -> None:
    """The attention begins as a mean: its values are those of its members."""
    model = learnt(section, kind)
    adapters.save(model, tmp_path)
    found = last_states(fuse(kind, str(tmp_path), str(tmp_path)), kind)
    plain = last_states(built(Bottleneck.model_validate({"kind": "bottleneck", "size": 4}), kind), kind)
    assert not torch.allclose(found, plain, atol=0.1)
    torch.testing.assert_close(found, last_states(model, kind), atol=1e-4, rtol=1e-4)


MORE: dict[str, tuple[dict[str, object], str]] = {
    "norms": ({"place": "houlsby"}, r"modules of the model that learnt too \(bert\.\S+LayerNorm, …; `norms`, `also`\)"),
    "embeddings": ({"place": "pfeiffer", "also": ("word_embeddings",)}, r"too \(bert\.embeddings\.word_embeddings; "),
    "invertible": ({"place": "pfeiffer", "invertible": 2}, r"an invertible part \(`invertible`\)"),
}


@pytest.mark.parametrize(("section", "said"), MORE.values(), ids=MORE)
def test_members_with_more_than_networks_are_refused(tmp_path: Path, section: dict[str, object], said: str) -> None:
    first, second = member(tmp_path / "a", "bert", place="pfeiffer"), member(tmp_path / "b", "bert", **section)
    with pytest.raises(ModelError, match=rf"student\.adapter\.of\.second: this adapter was trained with .*{said}"):
        fuse("bert", first, second)


def test_members_beside_a_prefix_above_others_or_of_a_fusion_are_refused(tmp_path: Path) -> None:
    first = member(tmp_path / "a", "bert", place="pfeiffer")
    above = member(tmp_path / "above", "bert", place="pfeiffer", on=(first,))
    with pytest.raises(ModelError, match=r"of\.second: this adapter was trained with others below it \(`on`\)"):
        fuse("bert", first, above)
    mixed = MixAndMatch(kind="mix_and_match", size=4, tokens=2, width=4)
    adapters.save(built(mixed, "bert"), tmp_path / "mixed")
    with pytest.raises(ModelError, match=r"of\.second: this adapter was trained with a prefix"):
        fuse("bert", first, str(tmp_path / "mixed"))
    adapters.save(fuse("bert", first, first), tmp_path / "fusion")
    with pytest.raises(ModelError, match=r"of\.second: this adapter is no bottleneck"):
        fuse("bert", first, str(tmp_path / "fusion"))
    with pytest.raises(ModelError, match=r"student\.adapter\.on: .*fusion is a fusion; nothing stands on one"):
        member(tmp_path / "on", "bert", place="pfeiffer", on=(str(tmp_path / "fusion"),))


@pytest.mark.parametrize("names", [("en", "de"), ("a", "at"), ("lay", "default_2")])
def test_members_may_be_called_what_names_of_modules_begin_with(tmp_path: Path, names: tuple[str, str]) -> None:
    model = fuse(
        "bert",
        member(tmp_path / "1", "bert", place="pfeiffer"),
        member(tmp_path / "2", "bert", place="pfeiffer"),
        names,
    )
    adapters.save(model, tmp_path / "fusion")
    inputs = {name: tensor for name, tensor in batch("bert").items() if name != "labels"}
    with torch.no_grad():
        said = model(**inputs).logits
        again = adapters.attach(loaded("bert").model, tmp_path / "fusion", "a test").eval()
        torch.testing.assert_close(again(**inputs).logits, said, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["encoder", "0", "weight", "query", "down", "default", "keys", "a.b", "a/b"])
def test_a_name_that_would_be_confused_with_another_is_refused(tmp_path: Path, name: str) -> None:
    folders = [member(tmp_path / number, "bert", place="pfeiffer") for number in ("1", "2")]
    with pytest.raises(ModelError, match=rf"student\.adapter\.of: the name `{name}` is "):
        fuse("bert", *folders, ("first", name))


def test_weights_that_a_file_lacks_are_named(tmp_path: Path) -> None:
    folder = Path(member(tmp_path / "a", "bert", place="pfeiffer"))
    weights = load_file(folder / adapters.WEIGHTS)
    lost = next(key for key in weights if key.endswith("down.weight"))
    save_file({key: weight for key, weight in weights.items() if key != lost}, folder / adapters.WEIGHTS)
    with pytest.raises(ModelError, match=rf"lacks {lost}$"):
        adapters.attach(loaded("bert").model, folder, "a test")
