"""A run with a sharded teacher on two processes: dealt out once for all trainings."""

from typing import Any

import pytest

from tests.helpers import tiny
from tests.helpers.counted import carry_out


@pytest.fixture(scope="module")
def repeats(tmp_path_factory) -> list[dict[str, Any]]:
    """Three repeats under a teacher of 176 MB."""
    folder = tmp_path_factory.mktemp("repeats")
    sizes = {"num_hidden_layers": 14, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    model = tiny.model_folder(folder / "teacher", **sizes)
    once = {"max_steps": 2, "batch_size": 8, "watch": "off"}
    stages = {"student": {"kind": "train", "data": ["train"], "objective": [{"kind": "logits"}], "training": once}}
    teacher = {"kind": "sharded", "model": str(model), "dtype": "float32"}
    run = tiny.run_file(folder, stages, teacher=teacher, repeats=3)
    return carry_out(run, folder / "counts")


def test_repeats_deal_out_nothing_again_and_hold_no_more_than_the_first(repeats):
    for rank in repeats:
        assert rank["loads"] == 1 and len(rank["held"]) == 3
        assert max(rank["held"]) - rank["held"][0] < 0.05 * 176e6, rank["held"]
