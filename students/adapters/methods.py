"""From a section to peft's configuration of the method, for the architecture at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft import (
    AdaLoraConfig,
    CartridgeConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
)
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import PreTrainedModel

from configs.adapters import (
    AdaLora,
    AnyAdapter,
    BitFit,
    Bottleneck,
    Experts,
    Fusion,
    Ia3,
    Lora,
    MixAndMatch,
    Norms,
    Peft,
    Prefix,
    PromptTuning,
    PTuning,
    TopLayers,
)
from configs.errors import suggest
from distill.capture import decoder_layers
from distill.errors import ModelError
from students.adapters import sites
from students.adapters.families import Family, family_of, matching, pattern
from students.adapters.modular.config import PEFT_TYPE, ModularConfig

GROUPS: dict[str, Callable[[Family], tuple[str, ...]]] = {
    "query_value": lambda at: (*at.query, *at.value),
    "attention": lambda at: (*at.query, *at.key, *at.value, *at.attention_output),
    "feed_forward": lambda at: (*at.up, *at.down),
    "all": lambda at: (*at.query, *at.key, *at.value, *at.attention_output, *at.up, *at.down),
}
_MODULES = ("target_modules", "exclude_modules", "modules_to_save")
"""Keys of peft's that name modules by the ends of their names, where they hold a list."""
_OWN_PLACES = ("adaption_prompt", "trainable_tokens")
"""Methods that are for other modules than matrices, which peft finds: whole attentions, the embeddings."""


@dataclass(frozen=True)
class Target:
    """The model an adapter is for."""

    model: PreTrainedModel
    task_type: str
    """peft's name of the task."""
    whole: tuple[str, ...]
    """Modules trained whole: the head of the task, and what the section names."""
    where: str

    @property
    def family(self) -> Family:
        """The places of its architecture. Raise ModelError where they are not known."""
        return family_of(self.model, self.where)

    @property
    def turned(self) -> bool:
        """Whether its matrices lie transposed, as GPT-2's do."""
        return self.model.config.model_type == "gpt2"

    def found(self, ends: Sequence[str], key: str) -> str:
        """Return the pattern of the modules that end so. Raise ModelError where one of the ends matches nothing."""
        for end in ends:
            if not matching(self.model, [end]):
                raise ModelError(
                    f"{self.where}.{key}: no module ends in `{end}`{suggest(end, ends_of(self.model, end))}"
                )
        return pattern(ends)


def ends_of(model: PreTrainedModel, like: str) -> set[str]:
    """Return the ends of the names of the modules that have weights of their own, of as many parts as the given one."""
    parts = like.count(".") + 1
    found = [
        name.split(".")[-parts:] for name, module in model.named_modules() if list(module.parameters(recurse=False))
    ]
    return {".".join("#" if part.isdigit() else part for part in end) for end in found}


def peft_config(section: AnyAdapter, target: Target) -> PeftConfig:
    """Return the configuration. Raise ModelError for what the architecture is without."""
    whole = list(target.whole) or None
    common: dict[str, Any] = {"task_type": target.task_type, "modules_to_save": whole}
    match section:
        case Lora():
            return _lora(section, target, common)
        case AdaLora():
            return _adalora(section, target, common)
        case Ia3():
            at = target.family
            before = pattern((*at.attention_output, *at.down))
            ends, key = (section.targets, "targets") if section.targets else ((*at.key, *at.value, *at.down), "kind")
            learnt = target.found(ends, key)
            return IA3Config(target_modules=learnt, feedforward_modules=before, fan_in_fan_out=target.turned, **common)
        case Norms():
            found = [end for end in target.family.norms if matching(target.model, [end])]
            without = sites.weightless(target.model, found)
            return LNTuningConfig(target_modules=pattern(found), exclude_modules=pattern(without) or None, **common)
        case PromptTuning():
            return PromptTuningConfig(num_virtual_tokens=section.tokens, **_sizes(target), **common)
        case PTuning():
            return PromptEncoderConfig(
                num_virtual_tokens=section.tokens, encoder_hidden_size=section.width, **_sizes(target), **common
            )
        case Peft():
            return _by_name(section, target, common)
        case TopLayers():
            layers = sites.top_layers(section, target.model, target.family, target.where)
            return ModularConfig(**{**common, "modules_to_save": [*layers, *target.whole]})
        case Bottleneck() | MixAndMatch() | Prefix():
            norms = sites.trained_norms(section, target.model, target.family)
            return ModularConfig(
                **{**common, "modules_to_save": [*norms, *target.whole] or None},
                parts=sites.parts_of(section, target.model, target.family, target.where),
                drop=section.drop,
            )
        case BitFit():
            ends = section.targets or sites.with_bias(target.model)
            return ModularConfig(**common, parts=[{"at": target.found(ends, "targets"), "kind": "bias"}])
        case Experts():
            return ModularConfig(**common, parts=sites.experts(section, target.model, target.family))
        case Fusion():
            raise ValueError("a fusion's parts are those of its members")


def _lora(section: Lora, target: Target, common: dict[str, Any]) -> LoraConfig:
    init: Any = section.init if section.init != "default" else True
    return LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        use_dora=section.dora,
        use_rslora=section.rslora,
        init_lora_weights=init,
        target_modules=_targets(section.targets, target),
        fan_in_fan_out=target.turned,
        **common,
    )


def _adalora(section: AdaLora, target: Target, common: dict[str, Any]) -> AdaLoraConfig:
    return AdaLoraConfig(
        target_r=section.rank,
        init_r=section.initial_rank,
        lora_alpha=section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        orth_reg_weight=section.orthogonality,
        target_modules=_targets(section.targets, target),
        fan_in_fan_out=target.turned,
        total_step=10,  # the training's own number follows when it begins
        tinit=1,
        tfinal=1,
        **common,
    )


def _targets(targets: str | tuple[str, ...], target: Target) -> str:
    if not isinstance(targets, str):
        return target.found(targets, "targets")
    found = [end for end in GROUPS[targets](target.family) if matching(target.model, [end])]
    return pattern(dict.fromkeys(found))


def _sizes(target: Target) -> dict[str, Any]:
    """Return what peft looks for under names that not every configuration has."""
    config = target.model.config
    return {
        "token_dim": target.model.get_input_embeddings().embedding_dim,  # ALBERT's are narrower than its layers
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_transformer_submodules": 1,  # with peft's 2, half of the vectors before an encoder never get a gradient
    }


def _key_sizes(target: Target) -> dict[str, Any]:
    """Return the sizes of the keys that a token gets in all layers that look back: a decoder's, where there is one."""
    config = target.model.config
    heads = getattr(config, "decoder_attention_heads", config.num_attention_heads)
    width = getattr(config, "d_kv", config.hidden_size // heads)  # T5's heads need not fill its width
    layers = decoder_layers(config) or config.num_hidden_layers
    return {"num_layers": layers, "num_attention_heads": heads, "token_dim": heads * width}


def _by_name(section: Peft, target: Target, common: dict[str, Any]) -> PeftConfig:
    known = {str(getattr(name, "value", name)).lower(): made for name, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    del known[PEFT_TYPE.lower()]  # our own tuner, which has kinds of its own here
    made = known.get(section.method.lower())
    if made is None:
        raise ModelError(f"{target.where}.method: peft has no `{section.method}`{suggest(section.method, known)}")
    fields = made.__dataclass_fields__
    for key in section.options:
        if key not in fields:
            raise ModelError(f"{target.where}.options: unknown key `{key}` of {section.method}{suggest(key, fields)}")
    for key in _MODULES:
        named = section.options.get(key)
        target.found(list(map(str, named)) if isinstance(named, list) else [], f"options.{key}")
    given: dict[str, Any] = dict(section.options)
    own = section.method.lower() in _OWN_PLACES
    if "target_modules" in fields and "target_modules" not in given and not own:
        given["target_modules"] = _targets("query_value", target)
    if "fan_in_fan_out" in fields:
        given.setdefault("fan_in_fan_out", target.turned)
    if isinstance(whole := given.get("modules_to_save"), list):
        given["modules_to_save"] = [*target.whole, *whole]
    if made is CartridgeConfig:
        given = {**_key_sizes(target), **given}
    taken = {key: value for key, value in common.items() if key in fields}
    try:
        return made(**{**taken, **given})
    except (TypeError, ValueError) as error:
        raise ModelError(f"{target.where}.options: {str(error).splitlines()[0]}") from error
