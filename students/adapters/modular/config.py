"""What an adapter of ours is, as peft writes it into `adapter_config.json`."""

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig
from peft.utils.constants import DUMMY_TARGET_MODULES

PEFT_TYPE = "MODULAR"


@dataclass
class ModularConfig(PeftConfig):
    """Parts at places of a model; the places are regular expressions of whole module names."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    """What is added where: `at`, `kind`, and the numbers of that kind; see `students.adapters.modular.parts`."""
    under: list[str] = field(default_factory=list)
    """Names of the adapters that run before this one, frozen; they lie in folders of these names beside its file."""
    members: list[str] = field(default_factory=list)
    """Names of the adapters it attends over; they lie in folders of these names too."""
    drop: int = 0
    """While training, the parts of the lowest 0 … `drop` layers are left out, drawn for every batch."""
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        """Derive what peft needs to find the places."""
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = PEFT_TYPE  # type: ignore[assignment]
        self.target_modules = "|".join(f"(?:{part['at']})" for part in self.parts) or DUMMY_TARGET_MODULES
