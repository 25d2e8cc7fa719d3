"""How many tokens models have positions for, by the configurations transformers ships."""

import math

import pytest
from transformers import BertConfig, LEDConfig, PretrainedConfig, RobertaConfig, T5Config, XLNetConfig

from distill.positions import positions


@pytest.mark.parametrize(
    ("config", "read", "written"),
    [
        (BertConfig(), 512, 512),
        (RobertaConfig(max_position_embeddings=514), 512, 512),  # of 514, two stand before and on the padding token
        (T5Config(), math.inf, math.inf),
        (XLNetConfig(), math.inf, math.inf),
        (LEDConfig(), 16384, 1024),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PretrainedConfig) else None,
)
def test_positions_of_families(config: PretrainedConfig, read: float, written: float) -> None:
    assert (positions(config), positions(config, "decoder")) == (read, written)
