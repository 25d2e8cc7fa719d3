"""Words near a word in an embedding: an encoder's own matrix, or GloVe vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from configs.data import Task
from distill.data.augment import Proposer, Question
from distill.data.readers import read_lines
from distill.data.words import whole_words
from distill.errors import DataError
from distill.files import digest
from distill.models import ModelSource, fast, load

Vectors = NDArray[np.float32]

GLOVE_WORDS = 100_000
"""Lines of a GloVe file that are used: it is sorted by frequency, and the rest is rare words and noise."""
_SPARE = 16
"""Neighbours kept beyond those asked for, so that rounding in fp32 cannot decide who is the last."""
_AT_ONCE = 1 << 24
"""Similarities held at once."""


class Neighbours(Proposer):
    """Proposes the words whose vectors have the largest cosine with a word's, the word itself left out.

    A word is looked up as it is written, then in lower case. Each word's neighbours are computed once.
    """

    def __init__(self, words: Sequence[str], vectors: Vectors, candidates: int) -> None:
        """Take words with their vectors [V D]."""
        self._words = tuple(words)
        self._vectors = _normalised(vectors)
        self._index = {word: number for number, word in reversed(list(enumerate(words)))}
        self._candidates = candidates
        self._known: dict[str, tuple[str, ...]] = {}

    @property
    def fingerprint(self) -> str:
        """A digest of words, vectors and the number of candidates."""
        return digest(str(self._candidates), "\n".join(self._words), self._vectors.tobytes())

    def propose(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return the nearest words; none for a word that has no vector."""
        self._learn(sorted({question.word for question in questions} - self._known.keys()))
        return [self._known[question.word] for question in questions]

    def _learn(self, words: Sequence[str]) -> None:
        """Remember the neighbours of words."""
        self._known.update(dict.fromkeys(words, ()))
        found = [(word, number) for word in words if (number := self._find(word)) is not None]
        step = max(1, _AT_ONCE // len(self._words))
        for start in range(0, len(found), step):
            part = found[start : start + step]
            near = self._near(self._vectors[[number for _, number in part]])
            for (word, number), numbers in zip(part, near, strict=True):
                self._known[word] = self._nearest(word, self._vectors[number], numbers)

    def _find(self, word: str) -> int | None:
        return self._index.get(word, self._index.get(word.lower()))

    def _near(self, vectors: Vectors) -> NDArray[np.int64]:
        """Return which words are nearest to vectors [N D], a few more than asked for, in no order."""
        count = min(len(self._words), self._candidates + _SPARE)
        cosines = torch.from_numpy(vectors) @ torch.from_numpy(self._vectors).T
        return cosines.topk(count, sorted=False).indices.numpy()

    def _nearest(self, word: str, vector: Vectors, numbers: NDArray[np.int64]) -> tuple[str, ...]:
        """Sort a few words by their cosine in fp64; a word without direction has no neighbours."""
        if not vector.any():
            return ()
        cosines = self._vectors[numbers].astype(np.float64) @ vector.astype(np.float64)
        order = np.lexsort((numbers, -cosines))
        names = (self._words[numbers[place]] for place in order)
        others = [name for name in names if name.lower() != word.lower()]
        return tuple(others[: self._candidates])


def load_neighbours(source: ModelSource, candidates: int, where: str) -> Neighbours:
    """Load GloVe vectors where the path is a file, an encoder's embedding matrix otherwise.

    Raise DataError for a file that holds no vectors, ModelError for what is neither there nor a model.
    """
    path = Path(source.path).expanduser()
    if path.is_file():
        words, vectors = read_glove(path)
        return Neighbours(words, vectors, candidates)
    loaded = load(source, Task(kind="text"), (), where)
    matrix = loaded.model.get_input_embeddings().get_parameter("weight")
    return from_embeddings(fast(loaded.tokenizer, where), matrix.detach().float().numpy(), candidates)


def from_embeddings(tokenizer: PreTrainedTokenizerFast, matrix: Vectors, candidates: int) -> Neighbours:
    """Return the neighbours in an encoder's embedding matrix [V D], among the pieces that are whole words.

    A word of several pieces has no vector there, and the mean of its pieces' is near to nothing like it: it gets no
    proposals. GloVe vectors know it.
    """
    words = whole_words(tokenizer)
    return Neighbours(list(words.values()), matrix[list(words)], candidates)


def read_glove(path: Path) -> tuple[list[str], Vectors]:
    """Read the first words of letters of a GloVe or word2vec text file, with their vectors [V D]."""
    words: list[str] = []
    vectors: list[Vectors] = []
    for number, line in read_lines(path):
        word, _, rest = line.rstrip().partition(" ")
        if number == 1 and rest.isdigit():
            continue  # word2vec's first line: how many words, how many dimensions
        if number > GLOVE_WORDS:
            break
        if word.isalpha():
            words.append(word)
            vectors.append(_vector(rest, path, number))
            if len(vectors[-1]) != len(vectors[0]):
                raise DataError(
                    f"{path}:{number}: {len(vectors[-1])} numbers where the first word has {len(vectors[0])}"
                )
    if not words:
        raise DataError(f"{path}: holds no vector of a word")
    return words, np.stack(vectors)


def _vector(text: str, path: Path, number: int) -> Vectors:
    try:
        vector = np.array(text.split(), dtype=np.float32)
    except ValueError:
        raise DataError(f"{path}:{number}: a word and its numbers expected, separated by single spaces") from None
    if len(vector) == 0 or not np.isfinite(vector).all():
        raise DataError(f"{path}:{number}: a word and its numbers expected, separated by single spaces")
    return vector


def _normalised(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
