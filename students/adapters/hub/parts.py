"""From AdapterHub's configuration of an adapter to the parts of ours."""

from typing import Any, Literal

from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from configs.adapters import Bottleneck, Prefix
from configs.errors import suggest
from distill.errors import ModelError
from students.adapters import sites
from students.adapters.families import Family, pattern
from students.adapters.hub import demands
from students.adapters.hub.places import by_side, feed_forward, on_its_side, without_cross
from students.adapters.hub.read import CONFIG, HubAdapter
from students.adapters.sites import Spec

Settings = dict[str, Any]
_NAMES = {"leakyrelu": "leaky_relu"}
PREFIX = "prefix_tuning"
SIDES = {"encoder": "encoder_prefix", "decoder": "self_prefix", "cross": "cross_prefix"}
"""What AdapterHub calls the prefixes of each side; of a model with one stack they are `self_prefix`."""


def specs(hub: HubAdapter, model: PreTrainedModel, family: Family) -> list[Spec]:
    """Return the parts of an adapter. Raise ModelError for what is not computed here."""
    found: list[Spec] = []
    for section in hub.sections:
        match section.get("architecture"):
            case "prefix_tuning":
                found += _prefixes(demands.prefix(section, hub), hub, model, family)
            case None:
                found += _bottlenecks(demands.bottleneck(section, hub), hub, model, family)
            case other:
                beside = " beside another" if len(hub.sections) > 1 else ""
                raise ModelError(f"{hub.folder / CONFIG}: architecture: `{other}`{beside} cannot be taken over")
    return found


def _bottlenecks(settings: Settings, hub: HubAdapter, model: PreTrainedModel, family: Family) -> list[Spec]:
    spec: Spec = {
        "kind": "bottleneck",
        "size": _size(settings, hub),
        "activation": _activation(settings, hub),
        "scale": _scale(settings, hub),
        **_placed(settings, hub, family),
    }
    if settings["phm_layer"]:
        spec["kronecker"] = settings["phm_dim"]
    placed = [{**spec, **place} for place in by_side(spec.pop("at"), settings["leave_out"], model)]
    return [*placed, *_invertible(settings, hub, model, family)]


def _placed(settings: Settings, hub: HubAdapter, family: Family) -> Spec:
    """Return where the networks sit, and what they read and change there.

    AdapterHub says it by whether the residual and the normalisation come before the network (`original_ln_before`),
    after it (`original_ln_after`), and what is added to what it gives (`residual_before_ln`).
    """
    inside = {"at": feed_forward(family), "tap": list(family.residual)}
    order = tuple(settings[key] for key in ("original_ln_before", "original_ln_after", "residual_before_ln"))
    if not settings["is_parallel"] and order[:2] == (False, True) and order[2] in (True, False):
        return {"at": _after_both(settings, hub, family), "form": "output"}
    _only_feed_forward(settings, hub)
    if settings["is_parallel"] and order[:2] == (False, True):
        return {**inside, "form": "parallel"}
    if not settings["is_parallel"] and order in ((True, True, True), (True, False, False)):
        if not family.after:
            return {**inside, "form": "stream"}
        return {"at": pattern((family.after,)), "form": "norm" if order[2] else "output"}
    raise ModelError(
        f"{hub.folder / CONFIG}: original_ln_before, original_ln_after, residual_before_ln: {order} cannot be taken "
        "over; only (False, True, any) as Houlsby's, (True, True, True) as Pfeiffer's and (True, False, False) are"
    )


def _after_both(settings: Settings, hub: HubAdapter, family: Family) -> str:
    """Return the places after attention, after a decoder's look at its encoder, after the feed-forward layer."""
    attention = pattern(family.attention_output)
    found = []
    if settings["mh_adapter"]:
        found.append(without_cross(attention, family))
    if settings["cross_adapter"] and family.cross:
        found.append(rf"(?=.*\b{family.cross}\b)(?:{attention})")
    if settings["output_adapter"]:
        found.append(feed_forward(family))
    if not found:
        raise ModelError(f"{hub.folder / CONFIG}: mh_adapter, cross_adapter, output_adapter: none of them is set")
    return "|".join(found)


def _only_feed_forward(settings: Settings, hub: HubAdapter) -> None:
    for key, wanted in (("mh_adapter", False), ("cross_adapter", False), ("output_adapter", True)):
        if settings[key] != wanted:
            raise ModelError(
                f"{hub.folder / CONFIG}: {key}: {settings[key]} cannot be taken over; networks that are parallel or "
                "read what is normalised sit at the feed-forward layer only"
            )


def _size(settings: Settings, hub: HubAdapter) -> int:
    """Return the width inside, of the weights themselves: it is the same in all layers."""
    end = f".adapters.{hub.name}.adapter_down.0.{'b' if settings['phm_layer'] else 'weight'}"
    sizes = {len(weight) for weight in hub.weights.ending(end).values()}
    if not sizes:
        raise ModelError(f"{hub.folder}: the weights hold no …{end}")
    if len(sizes) > 1:
        what = f"the networks' widths are {', '.join(map(str, sorted(sizes)))}; only one for all layers is computed"
        raise ModelError(f"{hub.folder / CONFIG}: reduction_factor: {what}")
    return sizes.pop()


def _activation(settings: Settings, hub: HubAdapter) -> str:
    name = str(settings["non_linearity"]).lower()
    name = _NAMES.get(name, name)
    if name not in ACT2FN:
        raise ModelError(f"{hub.folder / CONFIG}: non_linearity: unknown `{name}`{suggest(name, ACT2FN)}")
    return name


def _scale(settings: Settings, hub: HubAdapter) -> float:
    """Return the factor on what a network adds; a learned one is put into its weights: s·(W x + b) = sW x + sb."""
    scaling = settings["scaling"]
    if not isinstance(scaling, str):
        return float(scaling)
    if scaling not in ("learned", "channel") or settings["phm_layer"]:
        raise ModelError(f"{hub.folder / CONFIG}: scaling: `{scaling}` cannot be taken over")
    return 1.0


def _invertible(settings: Settings, hub: HubAdapter, model: PreTrainedModel, family: Family) -> list[Spec]:
    """Return the invertible part; AdapterHub undoes it before the output only in models of its own."""
    held = any(f"invertible_adapters.{hub.name}." in name for name in hub.weights.tensors)
    if settings["inv_adapter"] is None or not held:  # old files of tasks name one that only languages have
        return []
    if settings["inv_adapter"] != "nice":
        raise ModelError(f"{hub.folder / CONFIG}: inv_adapter: `{settings['inv_adapter']}` cannot be taken over")
    reduction = settings["inv_adapter_reduction_factor"]
    if reduction not in range(2, 1000):
        what = f"{reduction!r} is not a whole number of 2 or more"
        raise ModelError(f"{hub.folder / CONFIG}: inv_adapter_reduction_factor: {what}")
    section = Bottleneck(kind="bottleneck", invertible=int(reduction), activation=_activation(settings, hub))
    found = sites.invertible(section, model, family)
    return found if hub.flexible else [spec for spec in found if spec["kind"] == "coupling"]


def _prefixes(settings: Settings, hub: HubAdapter, model: PreTrainedModel, family: Family) -> list[Spec]:
    if model.config.model_type in ("t5", "mt5"):
        raise ModelError(
            f"{hub.folder / CONFIG}: architecture: a prefix of T5 cannot be taken over: AdapterHub moves the relative "
            "positions of all real tokens by its length"
        )
    wanted: dict[Literal["encoder", "decoder", "cross"], bool] = {
        "encoder": settings["encoder_prefix"],
        "decoder": True,
        "cross": settings["cross_prefix"],
    }
    sides = tuple(side for side, there in wanted.items() if there)
    section = Prefix(kind="prefix", tokens=settings["prefix_length"], width=None, sides=sides)
    return [_left_out(spec, settings["leave_out"], model) for spec in sites.prefixes(section, model, family)]


def _left_out(spec: Spec, layers: list[int], model: PreTrainedModel) -> Spec:
    """Add the layers left out, as they are counted on the spec's side."""
    left = on_its_side(layers, spec["side"] == "encoder", model)
    return {**spec, "leave_out": left} if left else spec
