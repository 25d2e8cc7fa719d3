"""The rows of the support-desk set, to the letter: numbers measured on them hold for these rows only.

Recorded by this test on Python 3.11. After a deliberate change of the set, run the demo again and note the new digests.
"""

import os
import subprocess
import sys

import pytest

from distill.data.embedded import PARTS, load
from distill.files import digest

DIGESTS = {
    "train": "99f6723afb225328",
    "validation": "b200de2182f9f3f8",
    "test": "af9dd72710b1f6ed",
    "transfer": "e3d0c4a982bb2fb1",
}


def digest_of(part: str) -> str:
    """Digest the rows of a part in their order."""
    return digest(*(f"{row['label']}\t{row['text']}" for row in load(part=part)))


@pytest.mark.parametrize("part", PARTS)
def test_rows_are_the_ones_the_numbers_were_measured_on(part: str) -> None:
    assert digest_of(part) == DIGESTS[part]


@pytest.mark.parametrize("hashes", ["1", "2"])
def test_another_process_with_other_hashes_draws_the_same_rows(hashes: str) -> None:
    program = "from tests.golden.test_embedded import digest_of; print(digest_of('transfer'))"
    environment = os.environ | {"PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert found.strip() == digest_of("transfer")
