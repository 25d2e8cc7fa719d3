"""What a term asks of a model, in words, and whether the model has it."""

from collections.abc import Iterable

from distill.errors import UnmetNeeds
from distill.types import Layers, Needs


def check_offers(where: str, side: str, who: str, needs: Needs, offers: Needs) -> None:
    """Raise UnmetNeeds, naming both, where a side (`student` or `teacher`, called `who`) lacks what a term needs."""
    missing = needs - offers
    if missing == Needs():
        return
    hint = "; logits come from a head that is trained on the task" if missing.logits else ""
    raise UnmetNeeds(f"{where} needs {say(missing, side)}; {who} offers {say(offers)}{hint}")


def say(needs: Needs, side: str = "") -> str:
    """Return `logits, hidden states of layers 0–4, 6`, or `nothing`; with a side, `… of teacher layers 0–4, 6`."""
    prefix = f"{side} " if side else ""
    said = [f"{prefix}logits"] if needs.logits else []
    said += [f"{prefix}logits of wrong answers"] if needs.choices else []
    said += _say_layers(needs.on("encoder"), prefix)
    said += _say_layers(needs.decoder, f"{prefix}decoder ")
    said += [what.replace("scores", "scores to the encoder") for what in _say_layers(needs.cross, f"{prefix}decoder ")]
    return ", ".join(said) or "nothing"


def _say_layers(asked: Layers, prefix: str) -> list[str]:
    layered = {
        "hidden states": asked.hidden_states,
        "attention scores": asked.attentions,
        "queries, keys and values": asked.relations,
    }
    return [
        f"{what} of {prefix}layer{'s' if len(layers) > 1 else ''} {_ranges(layers)}"
        for what, layers in layered.items()
        if layers
    ]


def _ranges(layers: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(parts)
