"""The model card of an adapter's folder."""

from distill.adapter_folder import BASE
from pipelines.adapter_facts import AdapterFacts
from pipelines.card import on_hub
from pipelines.report import templates


def card(facts: AdapterFacts, name: str, architecture: str) -> str:
    """Write the card: what it is, what it belongs to, how it is loaded. `architecture` is the class of its model."""
    view = {
        "facts": facts,
        "name": name,
        "settings": facts.settings(),
        "architecture": architecture,
        "base": BASE if (facts.folder / BASE).is_dir() else facts.base,
        "on_hub": on_hub(facts.base),
        "own": facts.config["peft_type"] == "MODULAR",
    }
    return templates().get_template("adapter.md.j2").render(view)
