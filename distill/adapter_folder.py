"""The files of an adapter's folder; a module of its own, for those who read names and sizes without torch."""

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BASE = "base"
"""Folder, beside an adapter, of a frozen model that lies nowhere else."""


def is_norm(name: str) -> bool:
    """Whether a weight is that of a normalisation, by its name."""
    return "norm" in name.lower() or ".ln_" in name
