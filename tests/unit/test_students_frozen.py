"""Parts of a model that stay as they are: by what they are called anywhere, or by the names of their weights."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel

from distill.errors import ModelError
from distill.types import Batch, Needs
from students.frozen import weights_of
from students.student import Student

SIZES = {
    "bart": {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 32},
    "t5": {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 16},
}  # fmt: skip


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=40, pad_token_id=0, decoder_start_token_id=0, **SIZES[kind])
    return AutoModelForSeq2SeqLM.from_config(config)


def batch_of() -> Batch:
    ids = torch.randint(3, 40, (2, 5), generator=torch.Generator().manual_seed(0))
    return Batch(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, decoder_input_ids=ids)  # type: ignore


def test_embeddings_of_bart_are_its_tokens_and_positions() -> None:
    names = weights_of(model_of("bart"), ["embeddings"], "here")
    assert names == {
        "model.shared.weight",
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }


def test_embeddings_of_t5_are_its_tokens_and_no_distances() -> None:
    assert weights_of(model_of("t5"), ["embeddings"], "here") == {"shared.weight"}


@pytest.mark.parametrize("kind", SIZES)
def test_an_encoder_stays_with_the_embeddings_it_reads(kind: str) -> None:
    model = model_of(kind)
    names = weights_of(model, ["encoder"], "here")
    inside = {name for name, _ in model.named_parameters() if ".encoder." in f".{name}"}
    shared = {name for name, _ in model.named_parameters() if name.endswith("shared.weight")}
    assert names == inside | shared and shared
    assert not any("decoder" in name for name in names)


def test_a_path_names_what_begins_with_it_and_no_more() -> None:
    model = model_of("bart")
    found = weights_of(model, ["model.decoder.layers.1", "lm_head"], "here")
    assert found == {n for n, _ in model.named_parameters() if n.startswith("model.decoder.layers.1.")} | {
        "model.shared.weight"  # the output's weights are those of the tokens
    }


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("encodr", "here: the model has no `encodr`; did you mean `encoder`? There are: embeddings, encoder, decoder, "
                   "model, model.shared, model.encoder, model.decoder"),
        ("model.decoder.layers.2", "here: the model has no `model.decoder.layers.2`; did you mean `model.decoder.lay"),
        ("layers", "here: the model has no `layers`"),
    ],
)  # fmt: skip
def test_a_name_of_nothing_is_refused_with_what_there_is(part: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        weights_of(model_of("bart"), [part], "here")
    assert said in str(caught.value)


def test_a_model_without_a_decoder_has_no_encoder_either() -> None:
    config = AutoConfig.for_model("bert", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
    model = AutoModel.from_config(config)
    assert weights_of(model, ["embeddings"], "here") == {
        f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
    }
    with pytest.raises(ModelError, match="has no `decoder`"):
        weights_of(model, ["decoder"], "here")


def test_all_of_a_model_is_too_much() -> None:
    with pytest.raises(ModelError, match="encoder, decoder are all of the model; nothing is left to train"):
        weights_of(model_of("t5"), ["encoder", "decoder"], "here")


def test_an_optimiser_holds_only_the_rest_and_moves_nothing_else() -> None:
    student = Student(model_of("bart"), has_head=True)
    student.keep(["encoder", "embeddings"], "here")
    before = {name: value.clone() for name, value in student.named_parameters()}
    assert student.freeze_unused(batch_of(), Needs(logits=True)) == []
    groups = student.parameter_groups(1e-3, 0.1)
    optimiser = torch.optim.AdamW(groups, lr=0.1)
    student(batch_of(), Needs(logits=True)).logits.logsumexp(-1).sum().backward()
    optimiser.step()
    moved = {name for name, value in student.named_parameters() if not torch.equal(value, before[name])}
    assert moved == before.keys() - student.kept
    assert sum(len(group["params"]) for group in groups) == len(moved)
    assert all("decoder.layers" in name or "layernorm" in name for name in moved)


def test_what_is_frozen_stays_so_where_other_terms_need_other_outputs() -> None:
    student = Student(model_of("bart"), has_head=True)
    student.keep(["encoder"], "here")
    with pytest.raises(ModelError, match="nothing that the objective looks at depends on weights that may be trained"):
        student.freeze_unused(batch_of(), Needs(hidden_states=frozenset({1})))
