"""Vocabularies of one's own for translation: a SentencePiece model of both languages, as a transformers tokenizer."""

import re
from collections.abc import Iterable
from heapq import nsmallest
from io import BytesIO
from itertools import repeat

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from distill.data.hashing import hash_text
from distill.errors import DataError

SPECIAL = ("<pad>", "</s>", "<unk>")
"""Padding, end of text, unknown: their places are their ids."""
BYTES = 256
"""Pieces for single bytes, which spell the characters that have no piece."""
MOST_TEXTS = 1_000_000
"""Texts pieces are learnt from; sentences take about 1.5 GB of memory. Of more, a hash chooses."""
SCORE_STEP = 1 / 1024
"""Nats scores are rounded to. Even in 32 bits their sums are then exact up to 16,384 nats, about 2,000 pieces. Else
rounding would choose between equally good splits, and not the same: sentencepiece adds floats over a text, tokenizers
doubles over a word."""
_BYTE_NAMES = "<0x0123456789ABCDEF>"
_SPELLING = "".join(sorted({*_BYTE_NAMES, *"".join(SPECIAL)}))
"""Characters of the names of special and byte pieces. All have pieces, so that such a name in a text can be spelt."""
_EXCEEDED = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
_UNDERCUT = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


def train_vocabulary(
    texts: Iterable[str], size: int, *, character_coverage: float = 0.9999, where: str = "vocabulary"
) -> PreTrainedTokenizerFast:
    """Learn a joint vocabulary of `size` tokens from texts of all languages; their order does not matter.

    A Unigram model (Kudo 2018) as SentencePiece trains it (Kudo and Richardson 2018). Characters without a piece are
    spelt by their bytes: nothing becomes `<unk>`, and a text comes back as it was, but for outer spaces, all but one of
    a run of spaces, and U+2581, which stands for a space. The 256 bytes are there at every size, since a model that
    cannot write what it reads is worse than longer texts: Multi30k's validation texts get longer by 19 % at size 600,
    8 % at 1,000, 0.4 % at 6,000. `character_coverage` is the share of characters that get pieces of their own; the
    others are what the bytes' embeddings learn from. Raises DataError as `learn_pieces` does.
    """
    return as_tokenizer(learn_pieces(texts, size, character_coverage=character_coverage, where=where))


def learn_pieces(texts: Iterable[str], size: int, *, character_coverage: float, where: str) -> bytes:
    """Return a trained SentencePiece model, the same for the same texts in any order, on any number of cores.

    Raises DataError where there is no text, `size` is more than the texts yield or less than their characters need.
    """
    kept = _chosen(texts)
    if not kept:
        raise DataError(f"{where}: there is no text to learn pieces from")
    if not 0.98 <= character_coverage <= 1:
        raise DataError(f"{where}: character coverage {character_coverage:g} is not between 0.98 and 1")
    written = BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(kept),
            model_writer=written,
            model_type="unigram",
            vocab_size=max(size, len(SPECIAL)),  # below, sentencepiece no longer says how many it needs
            character_coverage=character_coverage,
            byte_fallback=True,
            required_chars=_SPELLING,
            normalization_rule_name="identity",
            max_sentence_length=2**30,  # in bytes, the most it takes; longer texts would be left out without a word
            num_threads=16,  # sums are made thread by thread: another number gives other scores
            minloglevel=3,
            pad_id=SPECIAL.index("<pad>"),
            eos_id=SPECIAL.index("</s>"),
            unk_id=SPECIAL.index("<unk>"),
            bos_id=-1,
        )
    except RuntimeError as error:
        raise DataError(f"{where}: {_reason(str(error), size, len(kept))}") from error
    return written.getvalue()


def as_tokenizer(model: bytes) -> PreTrainedTokenizerFast:
    """Return a tokenizer that splits texts as a model of `learn_pieces` does, and ends each with `</s>`."""
    end = SPECIAL[1]
    core = Tokenizer(models.Unigram(_scored(SentencePieceProcessor(model_proto=model)), SPECIAL.index("<unk>"), True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, SPECIAL.index(end))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True)),
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # `</s>` in a text is four characters, not its end
    )


def _chosen(texts: Iterable[str]) -> list[str]:
    """Return the texts that are not blank, or those with the smallest hashes, in the order of their hashes."""
    filled = ((hash_text(text), text) for text in texts if text.strip())
    return [text for _, text in nsmallest(MOST_TEXTS, filled)]


def _scored(trained: SentencePieceProcessor) -> list[tuple[str, float]]:
    """Return the pieces with their log-probabilities.

    tokenizers looks for every piece in a text, sentencepiece not for special and byte pieces: these get a score below
    that of any spelling of their names.
    """
    pieces = [trained.id_to_piece(number) for number in range(len(trained))]
    scores = [round(trained.get_score(number) / SCORE_STEP) * SCORE_STEP for number in range(len(trained))]
    named = len(SPECIAL) + BYTES
    never = (max(map(len, pieces[:named])) + 1) * min(scores)
    return list(zip(pieces, [*repeat(never, named), *scores[named:]], strict=True))


def _reason(said: str, size: int, texts: int) -> str:
    """Return what sentencepiece says in the user's terms."""
    if found := _EXCEEDED.search(said):
        return f"size {size:,} is more than {texts:,} texts yield; at most {int(found[1]):,}"
    if found := _UNDERCUT.search(said):
        characters = int(found[1]) - len(SPECIAL) - BYTES
        return (
            f"size {size:,} is too small; at least {int(found[1]):,}: "
            f"{len(SPECIAL)} special, {BYTES} bytes, {characters:,} characters"
        )
    return f"sentencepiece learns nothing from {texts:,} texts: {said}"
