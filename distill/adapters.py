"""Adapters of the PEFT library in a folder of their own, beside the model they were trained on."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from configs.errors import suggest
from distill.errors import ModelError

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk."""

    folder: Path
    base: str
    """Model it was trained on: a folder or a name on the hub"""
    revision: str | None

    def merged_into(self, model: PreTrainedModel, where: str) -> PreTrainedModel:
        """Return the model with the adapter's changes added to its weights.

        The sum is W + ΔW, as the adapter has it at work: one model for every engine and for every loss, and none of
        them can leave the adapter out. Raises ModelError for weights that do not fit, or that cannot be added.
        """
        from peft import PeftModel  # slow to import, and few models have one

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Found missing adapter keys")
                joined: Any = PeftModel.from_pretrained(model, str(self.folder))
            merged: PreTrainedModel = joined.merge_and_unload(safe_merge=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
            told = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(f"{where}: the adapter in {self.folder} does not fit {self.base}: {told}") from error
        merged.config._name_or_path = str(self.folder)
        return merged


def find(folder: Path | None, where: str) -> Adapter | None:
    """Return the adapter a folder holds; none where it holds a whole model, or is none. Raise ModelError for an adapter
    without weights, or whose settings name no base.
    """
    if folder is None or not (folder / SETTINGS).is_file():
        return None
    if not (folder / WEIGHTS).is_file():
        names = sorted(path.name for path in folder.iterdir() if path.name != SETTINGS)
        raise ModelError(f"{where}: adapter {folder} lacks {WEIGHTS}{suggest(WEIGHTS, names) if names else ''}")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        base, revision = settings["base_model_name_or_path"], settings.get("revision")
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise ModelError(f"{where}: {folder / SETTINGS} names no model in `base_model_name_or_path`")
    if Path(base).resolve() == folder.resolve():
        raise ModelError(f"{where}: adapter {folder} names itself as the model it was trained on")
    return Adapter(folder, base, revision)
