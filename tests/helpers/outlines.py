"""A run of large models of which there is only what plans read: configurations and tokenizers, no weights."""

from pathlib import Path

from transformers import AutoConfig

from tests.helpers import tiny

OBJECTIVE = [{"kind": "logits"}, {"kind": "hidden", "layers": "last"}]
TRAINING = {"max_steps": 2, "batch_size": 8, "padding": "fixed"}
STAGES = {"student": {"kind": "train", "data": ["train"], "objective": OBJECTIVE, "training": TRAINING}}


def run_file(folder: Path) -> Path:
    """Write a run with a teacher of 3.3 GB and a student of 0.25 GB in fp32."""
    teacher = _model(folder / "it's a teacher", hidden_size=4096, intermediate_size=16384, num_hidden_layers=4)
    student = _model(folder / "student", hidden_size=2048, intermediate_size=8192, num_hidden_layers=1)
    given = {"teacher": {"model": str(teacher)}, "student": {"kind": "folder", "model": str(student)}}
    return tiny.run_file(folder, STAGES, **given)


def _model(folder: Path, **sizes: int) -> Path:
    """Write what plans read of a model: no weights."""
    given = {"vocab_size": len(tiny.SPECIAL) + len(tiny.WORDS), "num_attention_heads": 8, "max_position_embeddings": 64}
    config = AutoConfig.for_model("bert", id2label=dict(enumerate(tiny.LABELS)), **given, **sizes)
    config.architectures, config.pad_token_id = ["BertForSequenceClassification"], 0
    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder
