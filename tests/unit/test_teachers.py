import pytest
import torch

from configs.data import Task
from configs.teachers import FreshTeacher
from distill.errors import ModelError
from distill.models import ModelSource, fingerprint, load
from distill.protocols import Teacher
from distill.types import Needs, Outputs
from teachers import fresh
from teachers.live import LiveTeacher
from teachers.none import NoTeacher
from tests.helpers import pairs, tiny

TASK = Task(labels=tiny.LABELS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.model_folder(tmp_path_factory.mktemp("teacher"))


def _live(folder, order=None) -> LiveTeacher:
    source = ModelSource(str(folder))
    return LiveTeacher(load(source, TASK, tiny.LABELS, "teacher"), TASK, fingerprint(source), order)


def _batch():
    ids = torch.randint(5, len(tiny.WORDS), (3, 6), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def check_teacher(teacher: Teacher) -> None:
    """What every teacher must keep to."""
    assert not isinstance(teacher, torch.nn.Module)
    assert teacher.fingerprint and teacher.describe()
    outputs = teacher(_batch(), teacher.offers)
    assert (outputs.logits is not None) == teacher.offers.logits
    assert outputs.hidden_states.keys() == teacher.offers.hidden_states
    assert outputs.attentions.keys() == teacher.offers.attentions
    assert outputs.relations.keys() == teacher.offers.relations
    tensors = [*outputs.hidden_states.values(), *outputs.attentions.values()]
    assert not any(tensor.requires_grad for tensor in tensors)
    again = teacher(_batch(), teacher.offers)
    assert all(torch.equal(again.hidden_states[layer], states) for layer, states in outputs.hidden_states.items())


def test_conformance(folder):
    check_teacher(_live(folder))
    check_teacher(NoTeacher())
    assert NoTeacher()(_batch(), Needs()) == Outputs()


def test_a_live_teacher_has_no_dropout_and_refuses_train_mode(folder):
    teacher = _live(folder)
    teacher._model.train()
    with pytest.raises(RuntimeError, match="train mode"):
        teacher(_batch(), Needs(logits=True))


def test_logits_come_in_the_order_of_the_run(folder):
    given, swapped = (_live(folder, order)(_batch(), Needs(logits=True)).logits for order in (None, [1, 0]))
    assert torch.equal(given[:, [1, 0]], swapped)


def test_without_a_trained_head_no_logits_are_offered(tmp_path):
    teacher = _live(tiny.model_folder(tmp_path, head=False))
    assert not teacher.offers.logits and teacher.offers.hidden_states == frozenset(range(5))


def test_the_fingerprint_follows_the_weights(folder, tmp_path):
    assert fingerprint(ModelSource(str(folder))) == fingerprint(ModelSource(str(folder)))
    other = tiny.model_folder(tmp_path, seed=1)
    assert fingerprint(ModelSource(str(folder))) != fingerprint(ModelSource(str(other)))


def test_a_damaged_or_foreign_model_is_named(folder, tmp_path):
    broken = tiny.model_folder(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="teacher: cannot load"):
        load(ModelSource(str(broken)), TASK, tiny.LABELS, "teacher")
    config = (folder / "config.json").read_text(encoding="utf-8")
    foreign = tiny.model_folder(tmp_path / "foreign")
    (foreign / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoModel": "x.Y"},', 1), encoding="utf-8")
    with pytest.raises(ModelError, match="asks for its own code"):
        load(ModelSource(str(foreign)), TASK, tiny.LABELS, "teacher")


def test_a_fresh_teacher_that_writes_has_a_vocabulary_of_both_languages(tmp_path):
    sizes = FreshTeacher(kind="fresh", vocabulary=320, layers=2, decoder_layers=1, hidden_size=16, heads=2)
    task = Task(kind="generation")
    texts = [text for pair in pairs.sentences(100) for text in pair]
    found = fresh.make(sizes, task, lambda: iter(texts), 3, tmp_path)
    loaded = load(ModelSource(str(found)), task, (), "teacher")
    config = loaded.model.config
    assert loaded.trained_head and config.model_type == "marian" and config.scale_embedding
    assert (config.encoder_layers, config.decoder_layers, config.vocab_size) == (2, 1, 320)
    assert (config.pad_token_id, config.decoder_start_token_id, config.eos_token_id) == (0, 0, 1)
    assert loaded.tokenizer(texts[0])["input_ids"][-1] == 1


def test_a_fresh_teacher_is_made_once_and_the_same_each_time(tmp_path):
    sizes = FreshTeacher(kind="fresh", vocabulary=200, layers=2, hidden_size=16, intermediate_size=32, heads=2)
    texts = [text for text, _ in tiny.sentences(50)]
    first, again = (fresh.make(sizes, TASK, lambda: iter(texts), 3, tmp_path / name) for name in ("a", "b"))
    assert fingerprint(ModelSource(str(first))) == fingerprint(ModelSource(str(again)))
    loaded = load(ModelSource(str(first)), TASK, tiny.LABELS, "teacher")
    assert not loaded.trained_head and loaded.tokenizer.pad_token_id == 0
    ids = loaded.tokenizer(texts[0])["input_ids"]
    assert ids[0] == loaded.tokenizer.cls_token_id and ids[-1] == loaded.tokenizer.sep_token_id
