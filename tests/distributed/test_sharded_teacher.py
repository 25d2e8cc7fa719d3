"""A teacher dealt out over two processes says what a live one says, and neither holds more than its half."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import families, shards, warm


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict[str, Any]]]:
    folder: Path = tmp_path_factory.mktemp("shards")
    shards.write(folder)
    shards.write_large(folder)
    done = warm.run("tests.helpers.shards", str(folder), processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_what_it_says_is_what_a_live_one_says(ranks, kind):
    for rank in ranks:
        assert rank[kind]["compared"] > 8
        assert rank[kind]["gap"] < 1e-6


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_in_bf16_too(ranks, kind):
    """Which it is unless something else is asked for."""
    for rank in ranks:
        found = rank[f"{kind} {shards.BF16}"]
        assert "torch.bfloat16" in found["types"] and found["compared"] == rank[kind]["compared"]
        assert found["gap"] == 0.0  # the same products of the same weights
        assert 0.5 <= found["held"] < 0.51


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_facts_are_known_before_anything_is_loaded(ranks, kind):
    assert all(rank[kind]["same shape"] and rank[kind]["same offers"] for rank in ranks)


@pytest.mark.parametrize("kind", families.FAMILIES)
def test_each_rank_holds_its_half(ranks, kind):
    for rank in ranks:
        assert 0.5 <= rank[kind]["held"] < 0.51  # what does not divide is padded


def test_no_rank_ever_holds_it_whole(ranks):
    for rank in ranks:
        assert 0.4 < rank[shards.LARGE]["held"] < 0.6
        passing = 2 * rank[shards.LARGE]["largest"]  # as it is read, and as it is cut up
        assert rank[shards.LARGE]["peak"] < 0.5 + passing + 0.05
