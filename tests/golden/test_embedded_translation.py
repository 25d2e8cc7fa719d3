"""The rows of the translation set, to the letter: numbers measured on them hold for these rows only.

Recorded by this test on Python 3.11, Babel 2.18 and num2words 0.5.14; Babel 2.16 with num2words 0.5.13 gives the same.
After a deliberate change of the set, run the demo again and note the new digests.
"""

import os
import subprocess
import sys

import pytest

from distill.data.embedded.dates import load_pairs
from distill.data.embedded.grammar import PARTS, Part
from distill.files import digest

DIGESTS = {
    "train": "9a9044f47193eaa6",
    "validation": "3075d642c3908a14",
    "test": "aafc46f522bf7dda",
    "transfer": "5742fb3869bb66d4",
}


def digest_of(part: Part) -> str:
    """Digest the pairs of a part in their order."""
    return digest(*(f"{english}\t{german}" for english, german in load_pairs(part)))


@pytest.mark.parametrize("part", PARTS)
def test_pairs_are_the_ones_the_numbers_were_measured_on(part: Part) -> None:
    assert digest_of(part) == DIGESTS[part]


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_another_process_with_other_hashes_draws_the_same_pairs(hashes: str) -> None:
    program = "from tests.golden.test_embedded_translation import digest_of; print(digest_of('train'))"
    environment = os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == digest_of("train")
