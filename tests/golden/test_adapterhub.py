"""AdapterHub's adapters, taken over, give the recorded outputs: logits and all hidden states.

The reference is `adapterhub/`, written by `make_adapterhub.py` with AdapterHub's own library, eager attention and
float64.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from distill import adapters, capture
from distill.errors import ModelError
from students.adapters.hub.build import take_over
from tests.helpers.float64 import float64

ROOT = Path(__file__).parent / "adapterhub"
INDEX: dict[str, Any] = json.loads((ROOT / "index.json").read_text(encoding="utf-8"))
CASES = {f"{case['family']}/{case['method']}": case for case in INDEX["cases"]}
NEAR = 1e-12
"""Both sides are computed in float64, where another order of the same sums (attention in one product per head, a
residual before or after what is added) moves values of size 3 by 3e-15; in float32 it moves either side by 2e-6."""
ROUNDED = 1e-7
"""Of weights that AdapterHub's were made into, and that are kept in float32."""
MADE_INTO = ("adapter_plus", "parallel_learned", "prefix")
"""Methods of which they are: a learned scale, and what a network makes of a prefix."""

_NORMS = "ln_after: True cannot be taken over; only False is computed here"
_T5 = "architecture: a prefix of T5 cannot be taken over"
REFUSED = {
    "bert/pfeiffer_norms": _NORMS,
    "t5/pfeiffer_norms": _NORMS,
    "bert/compacter_unshared": "factorized_phm_rule: True cannot be taken over; only False is computed here",
    "bert/unipelt": "use_gating: True cannot be taken over; only False is computed here",
    "t5/prefix": _T5,
    "t5/prefix_flat": _T5,
    "t5/mam": _T5,
}
"""What is not computed here, by the key that says so: normalisations inside a bottleneck, rules that are no longer one
for all layers, gates, and the moved positions of T5."""


def base(family: str) -> PreTrainedModel:
    entry = INDEX["families"][family]
    model: PreTrainedModel = getattr(transformers, entry["model_class"]).from_pretrained(ROOT / entry["folder"]).eval()
    capture.prepare(model)
    return model


def folders(case: dict[str, Any]) -> tuple[Path, list[Path]]:
    """Return the folder to take over, and those it was stacked on."""
    named = [ROOT / folder for folder in case["adapters"].values()]
    return (ROOT / case["fusion"], []) if case["fusion"] else (named[-1], named[:-1])


def taken_over(case: dict[str, Any]) -> PeftModel:
    folder, on = folders(case)
    return take_over(folder, base(case["family"]), "FEATURE_EXTRACTION", on=on)


def outputs(model: PreTrainedModel | PeftModel, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    inputs: Any = {name: recorded[name] for name in names if name in recorded}
    with float64(model):
        found: Any = model(**inputs, output_hidden_states=True, use_cache=False)
    made = {"logits": found.logits}
    for side in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states"):
        made |= {f"{side}_{at}": states for at, states in enumerate(found.get(side) or ())}
    return made


def distance(model: PreTrainedModel | PeftModel, folder: Path) -> float:
    recorded = load_file(folder / "outputs.safetensors")
    found = outputs(model, recorded)
    wanted = {name: tensor for name, tensor in recorded.items() if name == "logits" or "hidden" in name}
    assert set(wanted) <= set(found)
    return max(float((found[name] - tensor).abs().max()) for name, tensor in wanted.items())


@pytest.mark.parametrize("family", INDEX["families"])
def test_the_models_without_adapters_are_the_recorded_ones(family: str) -> None:
    assert distance(base(family), ROOT / family / "base") <= NEAR


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_an_adapter_taken_over_and_loaded_again_gives_the_recorded_outputs(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    adapters.save(taken_over(case), tmp_path)
    model = adapters.attach(base(case["family"]), tmp_path, "a test").eval()
    assert distance(model, ROOT / case["folder"]) <= (ROUNDED if case["method"] in MADE_INTO else NEAR)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_here_is_refused_by_its_key(name: str) -> None:
    with pytest.raises(ModelError) as refused:
        taken_over(CASES[name])
    assert REFUSED[name] in str(refused.value)
    assert "adapter_config.json" in str(refused.value)
