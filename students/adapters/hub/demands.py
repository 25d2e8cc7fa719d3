"""Keys of AdapterHub's configurations: which values are computed here, and which only mattered while training."""

from typing import Any

from configs.errors import suggest
from distill.errors import ModelError
from students.adapters.hub.read import CONFIG, HubAdapter

_TRAINING = ("dropout", "init_weights", "init_weights_seed", "type", "architecture")
BOTTLENECK = {
    "mh_adapter": False,
    "output_adapter": True,
    "cross_adapter": False,
    "leave_out": [],
    "original_ln_before": False,
    "original_ln_after": True,
    "residual_before_ln": True,
    "is_parallel": False,
    "non_linearity": "relu",
    "reduction_factor": 16,
    "scaling": 1.0,
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
    "phm_layer": False,
    "phm_dim": 4,
}
BOTTLENECK_ONLY: dict[str, Any] = {"ln_before": False, "ln_after": False, "use_gating": False}
PHM_ONLY: dict[str, Any] = {
    "phm_rank": 1,
    "phm_bias": True,
    "shared_phm_rule": True,
    "factorized_phm_rule": False,
    "factorized_phm_w": True,
    "shared_w_phm": False,
}
_BOTTLENECK_TRAINING = (
    *("stochastic_depth", "phm_c_init", "phm_init_range", "hypercomplex_nonlinearity", "learn_phm"),
    "adapter_residual_before_ln",  # says where the residual joins relative to `ln_after`, which is not there
    *("attention_type", "new_attention_norm"),  # old files repeat the fusion's settings
)
PREFIX = {
    "prefix_length": 30,
    "flat": False,
    "non_linearity": "tanh",
    "bottleneck_size": 512,
    "encoder_prefix": True,
    "cross_prefix": True,
    "leave_out": [],
    "shared_gating": True,  # how gates are shared, where there are any
}
PREFIX_ONLY: dict[str, Any] = {"use_gating": False}
LORA = {
    "r": 8,
    "alpha": 8,
    "composition_mode": "add",
    "leave_out": [],
    "attn_matrices": ["q", "v"],
    "selfattn_lora": True,
    "intermediate_lora": False,
    "output_lora": False,
    "dtype": None,
}
LORA_ONLY: dict[str, Any] = {"use_gating": False, "use_dora": False, "vera_b": None, "vera_d": None}
FUSION_ONLY: dict[str, Any] = {
    "query": True,
    "key": True,
    "query_before_ln": False,
    "residual_before": False,
    "temperature": False,
}
FUSION = {"value": True, "regularization": True}
_FUSION_TRAINING = (
    *("dropout_prob", "value_initialized"),
    "value_before_softmax",  # the value is linear, and the attention sums to one: before or after is the same
)


def bottleneck(section: dict[str, Any], hub: HubAdapter) -> dict[str, Any]:
    """Return a bottleneck's settings, all of them. Raise ModelError for one that is not computed here."""
    only = {**BOTTLENECK_ONLY, **(PHM_ONLY if section.get("phm_layer") else {})}
    ignored = (*_BOTTLENECK_TRAINING, *PHM_ONLY)
    return checked(section, BOTTLENECK, only, ignored, f"{hub.folder / CONFIG}")


def prefix(section: dict[str, Any], hub: HubAdapter) -> dict[str, Any]:
    """Return a prefix's settings, likewise."""
    return checked(section, PREFIX, PREFIX_ONLY, (), f"{hub.folder / CONFIG}")


def lora(section: dict[str, Any], hub: HubAdapter) -> dict[str, Any]:
    """Return the settings of low-rank updates or learned factors, likewise."""
    return checked(section, LORA, LORA_ONLY, (), f"{hub.folder / CONFIG}")


def fusion(section: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a fusion's settings, likewise."""
    return checked(section, FUSION, FUSION_ONLY, _FUSION_TRAINING, where)


def checked(
    section: dict[str, Any], known: dict[str, Any], only: dict[str, Any], ignored: tuple[str, ...], where: str
) -> dict[str, Any]:
    """Return the known settings with their defaults; raise for one that is unknown, or not the only value computed."""
    for key, value in section.items():
        if key in only and value != only[key]:
            raise ModelError(f"{where}: {key}: {value!r} cannot be taken over; only {only[key]!r} is computed here")
        if key not in {*known, *only, *ignored, *_TRAINING}:
            raise ModelError(f"{where}: {key}: unknown key{suggest(key, {*known, *only})}")
    return {key: section.get(key, default) for key, default in known.items()}
