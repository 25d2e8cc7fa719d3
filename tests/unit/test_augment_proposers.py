"""Who proposes words: neighbours in an embedding, and a masked language model, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.decoders import ByteLevel, WordPiece
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizerFast,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizerFast,
)

from distill.data.augment import Question
from distill.data.masked import MaskedLM, has_masked_lm, load_masked_lm
from distill.data.neighbours import Neighbours, from_embeddings, load_neighbours, read_glove
from distill.data.words import Span, content_words, whole_words
from distill.errors import DataError, ModelError
from distill.models import ModelSource
from tests.helpers.tiny import model_folder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PLAIN = ["good", "bad", "film", "plot", "story", "cast", "slow", "fun", "un", ",", ".", "7", "the"]
PIECES = ["##ny", "##ing", "##s", "##un"]
TEXTS = ["The good plot, unfunny films.", "Slow cast", "fun fun 7 story (bad film)", "good " * 30 + "plot"]


def bert_tokenizer() -> BertTokenizerFast:
    core = Tokenizer(models.WordPiece({w: n for n, w in enumerate(SPECIAL + PLAIN + PIECES)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    core.decoder = WordPiece()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return BertTokenizerFast(tokenizer_object=core, **names)


def roberta_tokenizer() -> RobertaTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevel()
    core.train_from_iterator(
        [f"a {text.lower()}" for text in TEXTS] * 3, trainers.BpeTrainer(vocab_size=90, special_tokens=special)
    )
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return RobertaTokenizerFast(tokenizer_object=core)


def bert() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=24, **sizes)), tokenizer


def roberta() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(0)
    tokenizer = roberta_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=26, pad_token_id=1, **sizes)
    return RobertaForMaskedLM(config), tokenizer


def questions() -> list[Question]:
    return [Question(text, span) for text in TEXTS for span in content_words(text)]


def test_whole_words_are_letters_without_continuations() -> None:
    expected = {"good", "bad", "film", "plot", "story", "cast", "slow", "fun", "un", "the"}
    found = whole_words(bert_tokenizer())
    assert set(found.values()) == expected
    assert all(bert_tokenizer().convert_ids_to_tokens(number) == word for number, word in found.items())
    bytewise = roberta_tokenizer()
    assert {"good", "plot"} <= set(whole_words(bytewise).values())
    assert all(bytewise.convert_ids_to_tokens(number)[0] == "Ġ" for number in whole_words(bytewise))


@torch.no_grad()
def plain_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, question: Question, count: int, beside: bool
) -> tuple[str, ...]:
    """Ask the way the method says it: one masked place, all logits, the likeliest whole words."""
    texts = (question.text, question.text) if beside else (question.text,)
    found = tokenizer(*texts, truncation="longest_first", max_length=24, return_offsets_mapping=True)
    ids = list(found["input_ids"])
    hit = [
        place
        for place, (start, end) in enumerate(found["offset_mapping"])
        if found.sequence_ids()[place] == 0 and start < question.span.end and end > question.span.start
    ]
    whole = len(hit) == 1 and question.text[slice(*found["offset_mapping"][hit[0]])].strip() == question.word
    if not whole or ids[hit[0]] == tokenizer.unk_token_id:
        return ()
    ids[hit[0]] = tokenizer.mask_token_id
    inputs = {"input_ids": torch.tensor([ids])}
    if "token_type_ids" in found:
        inputs["token_type_ids"] = torch.tensor([found["token_type_ids"]])
    logits = model.eval()(**inputs).logits[0, hit[0]]
    words = whole_words(tokenizer)
    order = sorted(words, key=lambda number: -float(logits[number]))
    return tuple(words[number] for number in order[:count])


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", [bert, roberta])
def test_the_masked_model_is_asked_word_by_word(kind: type, beside: bool) -> None:
    model, tokenizer = kind()
    proposer = MaskedLM(model, tokenizer, 5, beside_original=beside, tokens_at_once=60)
    expected = [plain_answer(model, tokenizer, question, 5, beside) for question in questions()]
    assert proposer.propose(questions()) == expected
    assert any(expected) and not all(expected)


def test_words_of_several_pieces_are_left_to_the_embeddings() -> None:
    model, tokenizer = bert()
    asked = [question for question in questions() if question.text in TEXTS[:3]]
    answers = dict(zip([q.word for q in asked], MaskedLM(model, tokenizer, 5).propose(asked), strict=True))
    assert answers["unfunny"] == answers["films"] == ()
    assert all(len(answers[word]) == 5 for word in ("good", "Slow", "story"))


def test_a_masked_model_is_loaded_with_its_head_or_not_at_all(tmp_path: Path) -> None:
    model, tokenizer = bert()
    model.save_pretrained(tmp_path / "mlm")
    tokenizer.save_pretrained(tmp_path / "mlm")
    loaded = load_masked_lm(ModelSource(str(tmp_path / "mlm")), 5, "stages.augment.masked_model")
    ready = MaskedLM(model, tokenizer, 5)
    assert loaded.propose(questions()) == ready.propose(questions())
    assert loaded.fingerprint == ready.fingerprint != MaskedLM(model, tokenizer, 4).fingerprint
    body = model_folder(tmp_path / "body", head=False)
    with pytest.raises(ModelError) as caught:
        load_masked_lm(ModelSource(str(body)), 5, "stages.augment.masked_model")
    expected = f"stages.augment.masked_model: {body} was saved without the head of a masked language model"
    assert str(caught.value) == expected
    assert has_masked_lm(model.config) and not has_masked_lm(BertModel(model.config).config.__class__())


def test_a_masked_model_that_lacks_weights(tmp_path: Path) -> None:
    model, tokenizer = bert()
    model.bert.save_pretrained(tmp_path)
    model.config.architectures = ["BertForMaskedLM"]
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"^w: .* lacks weights: cls\.predictions\."):
        load_masked_lm(ModelSource(str(tmp_path)), 5, "w")


def plain_neighbours(words: list[str], vectors: np.ndarray, word: str, count: int) -> tuple[str, ...]:
    own = vectors[words.index(word.lower())]
    cosine = [float(v @ own / np.linalg.norm(v) / np.linalg.norm(own)) for v in vectors.astype(np.float64)]
    order = sorted((n for n in range(len(words)) if words[n] != word.lower()), key=lambda n: -cosine[n])
    return tuple(words[n] for n in order[:count])


def ask(proposer: Neighbours, *words: str) -> list[tuple[str, ...]]:
    return proposer.propose([Question(word, Span(0, len(word))) for word in words])


def test_neighbours_are_those_of_largest_cosine() -> None:
    words = [f"{a}{b}{c}" for a in "bcdfgk" for b in "eiou" for c in "nrstz"]
    vectors = np.random.default_rng(0).normal(size=(len(words), 6)).astype(np.float32)
    proposer = Neighbours(words, vectors, 7)
    asked = [words[3], words[50].upper(), words[117]]
    expected = [plain_neighbours(words, vectors, word, 7) for word in asked]
    assert ask(proposer, *asked) == expected
    assert [ask(Neighbours(words, vectors, 7), word)[0] for word in asked] == expected
    assert ask(proposer, "unheard", asked[0]) == [(), expected[0]]


def test_few_words_and_a_word_without_direction() -> None:
    vectors = np.array([[1, 0], [1, 1], [0, 0]], dtype=np.float32)
    proposer = Neighbours(["good", "fine", "zero"], vectors, 15)
    assert ask(proposer, "good", "zero") == [("fine", "zero"), ()]


def test_the_matrix_of_an_encoder_proposes_whole_words_only(tmp_path: Path) -> None:
    model, tokenizer = bert()
    matrix = model.get_input_embeddings().weight.detach().numpy()
    proposer = from_embeddings(tokenizer, matrix, 4)
    words = whole_words(tokenizer)
    expected = plain_neighbours(list(words.values()), matrix[list(words)], "good", 4)
    assert ask(proposer, "good", "unfunny") == [expected, ()]
    model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_neighbours(ModelSource(str(tmp_path)), 4, "w")
    assert ask(loaded, "good") == [expected]
    assert loaded.fingerprint == proposer.fingerprint != from_embeddings(tokenizer, matrix, 3).fingerprint


GLOVE = "the 1 0\nGood 0.5 1\n, 0 0\nbad 0.5 -1e0\n"


@pytest.mark.parametrize("content", [GLOVE, "4 2\n" + GLOVE])
def test_vectors_of_a_glove_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(content)
    words, vectors = read_glove(path)
    assert words == ["the", "Good", "bad"]
    assert vectors.tolist() == [[1, 0], [0.5, 1], [0.5, -1]]
    assert ask(load_neighbours(ModelSource(str(path)), 1, "w"), "bad") == [("the",)]


@pytest.mark.parametrize(("content", "text"), [
    ("the 1 0\ngood 1\n", ":2: 1 numbers where the first word has 2"),
    ("the 1 x\n", ":1: a word and its numbers expected, separated by single spaces"),
    ("the 1 nan\n", ":1: a word and its numbers expected, separated by single spaces"),
    ("the\n", ":1: a word and its numbers expected, separated by single spaces"),
    (", 1 2\n", ": holds no vector of a word"),
])  # fmt: skip
def test_a_file_that_holds_no_vectors(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_glove(path)
    assert str(caught.value) == f"{path}{text}"


def test_embeddings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^stages\.augment\.embeddings: folder .*lost not found"):
        load_neighbours(ModelSource(str(tmp_path / "lost")), 1, "stages.augment.embeddings")
