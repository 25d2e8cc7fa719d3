"""Make our tuner known to peft, so that its folders load like those of any method."""

from peft import mapping
from peft.tuners.tuners_utils import BaseTuner

from students.adapters.modular.config import PEFT_TYPE, ModularConfig
from students.adapters.modular.tuner import ModularModel


def register() -> None:
    """Register once; peft's own `register_peft_method` insists on a member of its closed enumeration of methods."""
    name: dict[str, type[BaseTuner]] = mapping.PEFT_TYPE_TO_TUNER_MAPPING  # type: ignore[assignment]
    name[PEFT_TYPE] = ModularModel
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] = ModularConfig  # type: ignore[index]
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] = ModularModel.prefix  # type: ignore[index]
