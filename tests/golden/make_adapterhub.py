"""Write the reference cases in ``adapterhub/``: tiny models, adapters as AdapterHub saves them, and what they compute.

The library (``adapters``) pins an older transformers: the script has an environment of its own, and no test imports it:

    python3 -m venv adapterhub-env
    adapterhub-env/bin/pip install torch==2.13.0 adapters==1.3.0 transformers==4.57.6 safetensors==0.8.0
    OMP_NUM_THREADS=1 adapterhub-env/bin/python -m tests.golden.make_adapterhub

Every case is a folder ``<family>/<method>/`` with one folder per adapter and ``outputs.safetensors``; ``index.json``
lists them. Before a case is written, its files are loaded into a fresh model, which must compute the same.
The models attend with ``eager``: with SDPA, AdapterHub hides a prefix from the tokens of a decoder.
"""

import argparse
import json
import logging
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from adapters import (
    AdapterConfig,
    AdapterPlusConfig,
    AutoAdapterModel,
    CompacterConfig,
    CompacterPlusPlusConfig,
    DoubleSeqBnConfig,
    DoubleSeqBnInvConfig,
    Fuse,
    IA3Config,
    LoRAConfig,
    MAMConfig,
    ParBnConfig,
    PrefixTuningConfig,
    SeqBnConfig,
    SeqBnInvConfig,
    Stack,
    UniPELTConfig,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from tests.helpers.float64 import float64

VOCABULARY = 32
LENGTHS = (5, 4, 2)
TARGET_LENGTH = 3
ALL = ("bert", "roberta", "t5", "bart", "gpt2", "llama")
BUT_ROBERTA = ("bert", "t5", "bart", "gpt2", "llama")  # where RoBERTa, which runs BERT's code, would show nothing new
LEAST_EFFECT = 1e-2
SAME = 1e-12
UNREAD = "cls.predictions.bias"  # AdapterHub does not read it into its own head: it stays zero
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

Configs = dict[str, AdapterConfig]


@dataclass(frozen=True)
class Family:
    """A tiny model: its class, and the settings that make it tiny and free of dropout."""

    name: str
    model: type[PreTrainedModel]
    config: PretrainedConfig
    left_out: tuple[int, ...] = (0,)
    """Layers without an adapter in the AdapterDrop case, numbered as AdapterHub does: encoder first, then decoder."""

    @property
    def translates(self) -> bool:
        return bool(self.config.is_encoder_decoder)


@dataclass(frozen=True)
class Case:
    """One method: its adapters by name, how they are composed, and where it is recorded."""

    method: str
    configs: Callable[[Family], Configs]
    compose: str | None = None
    """None for a single adapter, else ``stack`` or ``fuse``, over the adapters in their order."""
    fusion: str = "dynamic"
    families: tuple[str, ...] = ALL
    flexible: tuple[str, ...] = ()
    """Families whose head is AdapterHub's own: only these run the inverse of an invertible adapter before the head."""
    binary: bool = False
    """Whether it is saved in the older format, ``pytorch_adapter.bin``."""
    head: bool = False
    """Whether the head is trained and saved with the adapter."""


@dataclass
class Outputs:
    """What a model computed for the fixed inputs."""

    inputs: dict[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        return self.tensors["logits"]

    def distance(self, other: "Outputs") -> float:
        """Tell how far apart two sets of outputs are, at the worst element."""
        return max(float((tensor - other.tensors[name]).abs().max()) for name, tensor in self.tensors.items())

    def save(self, path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in (self.inputs | self.tensors).items()}, path)


def families() -> list[Family]:
    """Give the six families, and BERT once more with the head that predicts masked tokens."""
    roberta = BERT_LIKE | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    t5 = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}
    bart = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    bart |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 8}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 32, "n_positions": 8, "pad_token_id": 0}
    llama = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    llama |= {"num_key_value_heads": 2, "max_position_embeddings": 8, "pad_token_id": 0}
    plain = {"vocab_size": VOCABULARY}
    ends = plain | {"bos_token_id": 1, "eos_token_id": 2}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    hub = transformers
    return [
        Family("bert", hub.BertForSequenceClassification, hub.BertConfig(**BERT_LIKE, num_labels=3)),
        Family("roberta", hub.RobertaForSequenceClassification, hub.RobertaConfig(**roberta, num_labels=3)),
        Family(
            "t5",
            hub.T5ForConditionalGeneration,
            hub.T5Config(**plain, **t5, dropout_rate=0.0, decoder_start_token_id=0),
            left_out=(0, 2),
        ),
        Family("bart", hub.BartForConditionalGeneration, hub.BartConfig(**plain, **bart, dropout=0.0), left_out=(0, 2)),
        Family("gpt2", hub.GPT2LMHeadModel, hub.GPT2Config(**ends, **gpt2, **no_dropout)),
        Family("llama", hub.LlamaForCausalLM, hub.LlamaConfig(**ends, **llama)),
        Family("bert_masked_lm", hub.BertForMaskedLM, hub.BertConfig(**BERT_LIKE)),
    ]


def single(config: AdapterConfig) -> Callable[[Family], Configs]:
    """Give the adapter of a case that has one, whatever the family."""
    return lambda _: {"task": config}


def prefix(**settings: Any) -> PrefixTuningConfig:
    return PrefixTuningConfig(**{"prefix_length": 3, "bottleneck_size": 4} | settings)


def houlsby(**settings: Any) -> DoubleSeqBnConfig:
    return DoubleSeqBnConfig(reduction_factor=4, **settings)


def methods() -> list[Case]:
    """Give the cases recorded for every family."""
    pfeiffer, inverted = SeqBnConfig(reduction_factor=4), SeqBnInvConfig(reduction_factor=4)
    parallel, compacter = ParBnConfig(reduction_factor=4), CompacterPlusPlusConfig(reduction_factor=2)
    flexible = ("t5",)  # its other class saves no shared rule: see `refusals`
    return [
        Case("houlsby", single(houlsby())),
        Case("houlsby_inv", single(DoubleSeqBnInvConfig(reduction_factor=4)), families=("bert", "t5")),
        Case("houlsby_drop", lambda of: {"task": houlsby(leave_out=list(of.left_out))}, families=BUT_ROBERTA),
        Case("pfeiffer", single(pfeiffer)),
        Case("pfeiffer_inv", single(inverted)),
        Case("parallel", single(parallel)),
        Case("compacter", single(CompacterConfig(reduction_factor=2)), flexible=flexible),
        Case("compacter_plus_plus", single(compacter), flexible=flexible, families=BUT_ROBERTA),
        Case("prefix", single(prefix()), binary=True, families=BUT_ROBERTA),
        Case("prefix_flat", single(prefix(flat=True)), binary=True),
        Case("mam", single(MAMConfig(prefix(flat=True), parallel)), binary=True),
        Case("fusion", lambda _: {"first": pfeiffer, "second": pfeiffer}, compose="fuse"),
        Case("stack", lambda _: {"language": inverted, "task": pfeiffer}, compose="stack"),
        Case("lora", single(LoRAConfig(r=2, alpha=4)), families=BUT_ROBERTA),
        Case("ia3", single(IA3Config()), families=BUT_ROBERTA),
    ]


def variants() -> list[Case]:
    """Give the cases that show one switch, in the families where it makes a difference."""
    norms = SeqBnConfig(reduction_factor=4, ln_before=True, ln_after=True, adapter_residual_before_ln=True)
    plus = AdapterPlusConfig(reduction_factor=4, stochastic_depth=0.0)
    unshared = CompacterConfig(reduction_factor=2, shared_phm_rule=False, factorized_phm_rule=True, phm_rank=2)
    crossed = houlsby(cross_adapter=True)
    learned = ParBnConfig(reduction_factor=4, scaling="learned")
    gated = UniPELTConfig(prefix(), SeqBnConfig(reduction_factor=4), LoRAConfig(r=2, alpha=4))
    inverted = SeqBnInvConfig(reduction_factor=4)
    language_models = ("t5", "bart", "gpt2", "llama", "bert_masked_lm")
    pair = {"first": SeqBnConfig(reduction_factor=4), "second": SeqBnConfig(reduction_factor=4)}
    return [
        Case("houlsby_binary", single(houlsby()), families=("bert",), binary=True),
        Case("houlsby_cross", single(crossed), families=("t5", "bart")),
        Case("pfeiffer_head", single(SeqBnConfig(reduction_factor=4)), families=("bert", "roberta"), head=True),
        Case("pfeiffer_inv_head", single(inverted), families=language_models, flexible=language_models),
        Case("pfeiffer_norms", single(norms), families=("bert", "t5"), binary=True),
        Case("adapter_plus", single(plus), families=("bert", "gpt2")),
        Case("parallel_learned", single(learned), families=("bert", "gpt2")),
        Case("compacter_unshared", single(unshared), families=("bert",)),
        Case("fusion_static", lambda _: dict(pair), compose="fuse", fusion="static", families=("bert", "gpt2")),
        Case("unipelt", single(gated), families=("bert",), binary=True),
    ]


def seeded(*names: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(names).encode()))


def fill(parameters: dict[str, Tensor], generator: torch.Generator, std: float) -> None:
    """Draw every parameter anew, in the order of their names; what scales is drawn around one."""
    for name, parameter in sorted(parameters.items()):
        noise = torch.randn(parameter.shape, generator=generator)
        scales = "norm" in name.lower() or ".ln_" in name or name.endswith(".scaling")
        around_one = (scales and not name.endswith("bias")) or (parameter.dim() == 2 and parameter.shape[1] == 1)
        width = 0.5 if "phm_rule" in name or ".W_" in name else std
        identity = (
            torch.eye(len(parameter)) if name.endswith("value.weight") and ".adapter_fusion_layer." in name else 0
        )
        with torch.no_grad():
            parameter.copy_(width * noise + float(around_one) + identity)


def base_model(family: Family) -> PreTrainedModel:
    """Build the model of a family with drawn weights."""
    model = family.model._from_config(family.config, attn_implementation="eager").eval()
    drawn = {name: parameter for name, parameter in model.named_parameters() if name != UNREAD}
    fill(drawn, seeded(family.name), std=0.2)
    return model


def load_base(family: Family, folder: Path, flexible: bool) -> PreTrainedModel:
    """Load a family's saved model, ready to take adapters."""
    kind = AutoAdapterModel if flexible else family.model
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    model.config.name_or_path = f"tiny-{family.name}"
    adapters.init(model)
    return model


def fixed_inputs(family: Family) -> dict[str, Tensor]:
    """Give three rows of different lengths, padded on the right."""
    generator = seeded("inputs", family.name)
    ids = torch.randint(4, VOCABULARY, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    inputs = {"input_ids": ids.where(mask.bool(), torch.tensor(family.config.pad_token_id)), "attention_mask": mask}
    if family.translates:
        target = torch.randint(4, VOCABULARY, (len(LENGTHS), TARGET_LENGTH), generator=generator)
        target[:, 0] = family.config.decoder_start_token_id
        inputs["decoder_input_ids"] = target
    return inputs


def run(model: PreTrainedModel, family: Family) -> Outputs:
    """Compute the logits and all hidden states for the fixed inputs, in float64: what is recorded does not depend on
    the order of the sums, which is another one elsewhere.
    """
    found = Outputs(fixed_inputs(family))
    with float64(model):
        computed = model(**found.inputs, output_hidden_states=True, return_dict=True)
    found.tensors["logits"] = computed.logits
    sides = ("encoder_hidden_states", "decoder_hidden_states") if family.translates else ("hidden_states",)
    for side in sides:
        found.tensors |= {f"{side}_{at}": states for at, states in enumerate(computed[side])}
    return found


def composition(case: Case, names: list[str]) -> str | Stack | Fuse:
    if case.compose is None:
        return names[0]
    return Stack(*names) if case.compose == "stack" else Fuse(*names)


def parameters_of(model: PreTrainedModel, segment: str) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if f".{segment}." in f".{name}"}


def add(model: PreTrainedModel, case: Case, family: Family) -> dict[str, Tensor]:
    """Add the adapters of a case with drawn weights, activate them, and give the parameters one would train."""
    configs = case.configs(family)
    names = list(configs)
    for name, config in configs.items():
        model.add_adapter(name, config=config)
        fill(parameters_of(model, name), seeded(family.name, case.method.removesuffix("_binary"), name), std=0.2)
    setup = composition(case, names)
    if case.compose == "fuse":
        model.add_adapter_fusion(setup, config=case.fusion)
        model.train_adapter_fusion(setup)
        trained = parameters_of(model, "adapter_fusion_layer")
        fill(trained, seeded(family.name, case.method, "fusion"), std=0.2)
    else:
        model.train_adapter(names[-1])
        trained = parameters_of(model, names[-1])
    if case.head:
        heads = {name: weight for name, weight in model.named_parameters() if name.startswith("classifier.")}
        fill(heads, seeded(family.name, case.method, "head"), std=0.5)
    model.set_active_adapters(setup)
    model.eval()
    return {name: parameter for name, parameter in trained.items() if parameter.requires_grad}


def save(model: PreTrainedModel, case: Case, names: list[str], folder: Path) -> dict[str, str]:
    """Save the adapters of a case as AdapterHub does, and tell in which folders."""
    safe = not case.binary
    for name in names:
        model.save_adapter(str(folder / name), name, use_safetensors=safe, with_head=case.head)
    if case.compose == "fuse":
        model.save_adapter_fusion(str(folder / "fusion"), composition(case, names), use_safetensors=safe)
    return {name: f"{folder.parent.name}/{folder.name}/{name}" for name in names}


def reload(model: PreTrainedModel, case: Case, names: list[str], folder: Path) -> None:
    """Load the saved adapters of a case into a fresh model and activate them."""
    safe = not case.binary
    for name in names:
        model.load_adapter(str(folder / name), use_safetensors=safe, with_head=case.head)
    setup = composition(case, names)
    if case.compose == "fuse":
        model.load_adapter_fusion(str(folder / "fusion"), use_safetensors=safe)
    model.set_active_adapters(setup)
    model.eval()


def record(case: Case, family: Family, root: Path, plain: Outputs) -> dict[str, Any]:
    """Write one case and give its entry in the index."""
    folder, base = root / family.name / case.method, root / family.name / "base"
    folder.mkdir()
    flexible = family.name in case.flexible
    model = load_base(family, base, flexible)
    if (off := run(model, family).distance(plain)) > SAME:
        raise RuntimeError(f"{family.name}: {type(model).__name__} computes something else, by {off:.1e}")
    names = list(case.configs(family))
    trained = add(model, case, family)
    outputs = run(model, family)
    folders = save(model, case, names, folder)
    again = load_base(family, base, flexible)
    reload(again, case, names, folder)
    if (lost := run(again, family).distance(outputs)) > SAME:
        raise RuntimeError(f"{family.name}/{case.method}: the saved files compute something else, by {lost:.1e}")
    effect = float((outputs.logits - plain.logits).abs().max())
    if effect < LEAST_EFFECT:
        raise RuntimeError(f"{family.name}/{case.method}: the adapter moves the logits by only {effect:.1e}")
    outputs.save(folder / "outputs.safetensors")
    return {
        "family": family.name,
        "method": case.method,
        "model_class": type(model).__name__,
        "folder": f"{family.name}/{case.method}",
        "adapters": folders,
        "composition": names[0] if case.compose is None else [case.compose, *names],
        "fusion": f"{family.name}/{case.method}/fusion" if case.compose == "fuse" else None,
        "format": "pytorch_adapter.bin" if case.binary else "adapter.safetensors",
        "head": case.head,
        "inverse_before_head": flexible and case.method.endswith("_inv_head"),
        "effect_on_logits": float(f"{effect:.3g}"),
        "trainable": sum(parameter.numel() for parameter in trained.values()),
        "parameters": {name: sum(p.numel() for p in parameters_of(model, name).values()) for name in names},
    }


def reason(attempt: Callable[[], object]) -> str:
    """Run what AdapterHub cannot do and give its first words about it."""
    try:
        attempt()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    raise RuntimeError("AdapterHub can do this by now: record it as a case")


def refusals(family: Family, root: Path) -> list[dict[str, str]]:
    """Try what AdapterHub cannot do with a family, and tell what it answers."""
    base = root / family.name / "base"

    def glow() -> None:
        model = load_base(family, base, flexible=False)
        model.add_adapter("task", config=SeqBnInvConfig(inv_adapter="glow"), set_active=True)
        run(model, family)

    def safe_prefix() -> None:
        model = load_base(family, base, flexible=False)
        model.add_adapter("task", config=prefix())
        with tempfile.TemporaryDirectory() as folder:
            model.save_adapter(folder, "task", use_safetensors=True)

    def shared_rule() -> None:
        model = load_base(family, base, flexible=False)
        model.add_adapter("task", config=CompacterConfig(reduction_factor=2))
        with tempfile.TemporaryDirectory() as folder:
            model.save_adapter(folder, "task")
            saved = torch.load(Path(folder) / "pytorch_adapter.bin", weights_only=True)
        if not any("phm_rule" in name for name in saved):
            raise LookupError("save_adapter leaves out shared_parameters.task.phm_rule")

    attempts = {"glow": glow, "prefix as safetensors": safe_prefix}
    if family.name == "t5":
        attempts["compacter of T5ForConditionalGeneration"] = shared_rule
    return [
        {"family": family.name, "method": method, "reason": reason(attempt)} for method, attempt in attempts.items()
    ]


def marian() -> list[dict[str, str]]:
    """Tell what AdapterHub answers to a model of the Marian family."""
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, pad_token_id=0, decoder_start_token_id=0
    )
    said = reason(lambda: adapters.init(transformers.MarianMTModel(config)))
    return [{"family": "marian", "method": "any", "reason": said}]


def lines(index: dict[str, Any]) -> str:
    """Lay the index out with one line for each case."""
    laid = []
    for name, value in index.items():
        rows = ",\n".join(f"  {json.dumps(entry)}" for entry in value) if isinstance(value, list) else None
        laid.append(f" {json.dumps(name)}: " + (json.dumps(value) if rows is None else f"[\n{rows}\n ]"))
    return "{\n" + ",\n".join(laid) + "\n}\n"


def write(root: Path) -> None:
    """Write every case and the index."""
    cases: list[dict[str, Any]] = []
    bases: dict[str, dict[str, str]] = {}
    unsupported = marian()
    for family in families():
        model = base_model(family)
        model.save_pretrained(root / family.name / "base")
        (root / family.name / "base" / "generation_config.json").unlink(missing_ok=True)
        plain = run(model, family)
        plain.save(root / family.name / "base" / "outputs.safetensors")
        bases[family.name] = {"model_class": family.model.__name__, "folder": f"{family.name}/base"}
        chosen = [case for case in (*methods(), *variants()) if family.name in case.families]
        cases += [record(case, family, root, plain) for case in chosen]
        if family.name != "bert_masked_lm":
            unsupported += refusals(family, root)
    libraries = (adapters, transformers, torch)
    index = {
        "versions": {library.__name__: library.__version__.partition("+")[0] for library in libraries},
        "attention": "eager",
        "families": bases,
        "cases": cases,
        "unsupported": unsupported,
    }
    (root / "index.json").write_text(lines(index), encoding="utf-8")


def main() -> None:
    """Replace the folder of the cases by freshly computed ones."""
    parser = argparse.ArgumentParser(description="Write the reference cases of AdapterHub.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "adapterhub")
    root: Path = parser.parse_args().folder
    logging.disable(logging.WARNING)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    write(root)


if __name__ == "__main__":
    main()
