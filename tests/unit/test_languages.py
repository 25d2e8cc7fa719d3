"""Models of many languages read and write in the two that the task names."""

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MBartTokenizer

from configs.data import Task
from configs.decoding import Decoding
from distill.data.tokenise import tokenizer_digest
from distill.errors import ModelError
from distill.languages import encode_targets
from distill.models import Loaded, ModelSource, load
from pipelines.adapter_moves import merge
from teachers.text.ctranslate2 import CTranslate2Writer
from teachers.text.huggingface import HuggingFaceWriter
from tests.helpers import many_languages

TEXTS = ["ab ba", "abc d", "hgf", "e f g h"]


@pytest.fixture(params=many_languages.FAMILIES)
def family(request, tmp_path) -> tuple[str, str, str]:
    """A folder with a model of many languages, and two of them."""
    return str(tmp_path), *many_languages.model_folder(tmp_path, request.param)


def _loaded(folder: str, source: str | None, target: str | None) -> Loaded:
    task = Task(kind="generation", source_language=source, target_language=target)
    return load(ModelSource(folder), task, (), "teacher.model")


def test_each_text_is_marked_with_its_own_language(family):
    folder, source, target = family
    words = _loaded(folder, source, target).tokenizer
    read, written = words(TEXTS)["input_ids"], encode_targets(words, TEXTS)
    marks = [words.convert_tokens_to_ids(code) for code in (source, target)]
    assert all(marks[0] in ids and marks[1] not in ids for ids in read)
    assert all(marks[0] not in ids and ids[-1] == words.eos_token_id for ids in written)
    turned = _loaded(folder, target, source).tokenizer
    assert turned(TEXTS)["input_ids"] != read
    other = _loaded(folder, source, source).tokenizer
    assert tokenizer_digest(words) != tokenizer_digest(other) != tokenizer_digest(turned)


def test_texts_are_those_of_generate_in_that_language(family, tmp_path):
    folder, source, target = family
    loaded = _loaded(folder, source, target)
    words, how = loaded.tokenizer, Decoding(beams=3, max_tokens=12)
    found = dict(HuggingFaceWriter([loaded.model], words, "x").generate(TEXTS, how))
    fast = dict(CTranslate2Writer(loaded.model, words, "x", tmp_path / "ct2", threads=1).generate(TEXTS, how))
    plain = AutoTokenizer.from_pretrained(folder, src_lang=source, tgt_lang=target)
    code = plain.convert_tokens_to_ids(target)
    model = type(loaded.model).from_pretrained(folder)
    starts = {"decoder_start_token_id": code} if isinstance(words, MBartTokenizer) else {"forced_bos_token_id": code}
    for place, text in enumerate(TEXTS):
        wanted = model.generate(
            **plain(text, return_tensors="pt"), num_beams=3, early_stopping=True, max_new_tokens=12, **starts
        )[0]
        assert wanted[0 if "decoder_start_token_id" in starts else 1] == code
        expected = plain.decode(wanted, skip_special_tokens=True)
        assert found[place].texts[0].text == fast[place].texts[0].text == expected


def test_the_languages_go_along_with_what_is_saved(family, tmp_path):
    folder, source, target = family
    loaded = _loaded(folder, source, target)
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (again.src_lang, again.tgt_lang) == (source, target)
    model = type(loaded.model).from_pretrained(tmp_path / "saved")
    own = HuggingFaceWriter([loaded.model], loaded.tokenizer, "x").generate(TEXTS, Decoding(beams=1, max_tokens=12))
    for place, completion in own:
        ids = model.generate(**again(TEXTS[place], return_tensors="pt"), max_new_tokens=12)[0]
        assert again.decode(ids, skip_special_tokens=True) == completion.texts[0].text


def test_languages_have_to_be_named_and_known(family):
    folder, source, target = family
    with pytest.raises(ModelError, match=r"task\.source_language: teacher\.model, .* is of many languages; name that"):
        _loaded(folder, None, None)
    with pytest.raises(ModelError, match=rf"task\.target_language: `{target}n` is no language of .*`{target}`"):
        _loaded(folder, source, f"{target}n")
    with pytest.raises(ModelError, match=r"task\.source_language: `a` is no language"):
        _loaded(folder, "a", target)


def test_languages_decide_results_where_they_are_said():
    plain, task = Task(kind="generation"), {"kind": "generation", "source_language": "de"}
    assert "language" not in plain.key()  # as runs have it that were made before there were such keys
    assert len({plain.key(), Task(**task, target_language="en").key(), Task(**task, target_language="fr").key()}) == 3


def test_a_body_of_many_languages_needs_none(family):
    folder, *_ = family
    body = load(ModelSource(folder), Task(kind="text"), (), "teacher.model")
    assert tokenizer_digest(body.tokenizer) != tokenizer_digest(_loaded(*family).tokenizer)


def test_an_adapter_is_merged_in_whatever_languages_it_was_saved(family, tmp_path):
    folder, *languages = family
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "adapter")
    assert merge(tmp_path / "adapter", tmp_path / "merged") < 1e-5
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged")
    assert merged.config.decoder_start_token_id == model.config.decoder_start_token_id
    loaded = _loaded(folder, *languages)
    for part in (loaded.tokenizer, loaded.model.config):
        part.save_pretrained(tmp_path / "adapter")
    merge(tmp_path / "adapter", tmp_path / "told")
    told = AutoTokenizer.from_pretrained(tmp_path / "told")
    assert [told.src_lang, told.tgt_lang] == languages
