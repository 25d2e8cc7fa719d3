"""Make the best of the machine, and say what it is."""

import logging
import os
import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from configs.errors import UserError
from configs.training import Machine
from pipelines import control_groups
from pipelines.extensions import settle
from pipelines.place import Place, here
from pipelines.version import code

_PACKAGES = ("torch", "transformers", "datasets", "lightning", "torchmetrics")


@dataclass(frozen=True)
class Device:
    """Where a run takes place."""

    accelerator: str
    """`cpu` or `gpu`."""
    devices: int
    """Of one host; on CPU, processes."""
    threads: int
    fast_fp32: bool
    """Whether fp32 products go through oneDNN."""
    native_bf16: bool = False
    """Whether it computes in bf16 by itself; elsewhere bf16 is slower than fp32."""
    nodes: int = 1
    """Hosts."""
    teachers: int = 0
    """Devices of all that only teach, the last ones."""

    @property
    def world(self) -> int:
        """Devices of all hosts."""
        return self.nodes * self.devices

    @property
    def trainers(self) -> int:
        """Devices that train together, the first ones."""
        return self.world - self.teachers

    @property
    def training_nodes(self) -> tuple[int, int]:
        """Hosts on which they lie, and how many of them each host has."""
        return max(1, self.trainers // self.devices), min(self.trainers, self.devices)

    def precision(self, wanted: str) -> str:
        """Return the precision to train in, with `auto` decided."""
        if wanted == "auto":
            return "bf16" if self.native_bf16 else "fp32"
        return wanted

    @property
    def torch_name(self) -> str:
        """What torch calls the first device."""
        return "cuda" if self.accelerator == "gpu" else "cpu"

    def describe(self) -> str:
        """Return one line for the terminal and the report."""
        hosts = f"{self.nodes} hosts × " if self.nodes > 1 else ""
        if self.accelerator == "gpu":
            many = f"{hosts}{self.devices} × {torch.cuda.get_device_name()}, {self.threads} CPU threads each"
            return many + self._teach()
        many = f"{hosts}{self.devices} processes × {self.threads} threads"
        parts = ["CPU", many + self._teach() if self.world > 1 else self._threads()]
        parts += ["fp32 products by oneDNN"] if self.fast_fp32 else []
        return ", ".join([*parts, "bf16" if self.native_bf16 else "no bf16"])

    def _teach(self) -> str:
        return f", {self.teachers} of them only teach{'es' if self.teachers == 1 else ''}" if self.teachers else ""

    def _threads(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"


def prepare(machine: Machine) -> Device:
    """Set threads and arithmetic for this process. Raise UserError for devices that are not there, or are not as many
    as the processes that were started.
    """
    settle()
    accelerator, place = _accelerator(machine), here()
    if accelerator == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed takes a GPU that is there, whatever a run asks for
    devices = _devices(machine, accelerator, place)
    nodes = (place.hosts if place else 1) if machine.nodes == "auto" else machine.nodes
    if place is not None and (nodes, devices) != (place.hosts, place.per_host):
        hosts = "1 host" if place.hosts == 1 else f"{place.hosts} hosts"
        raise UserError(
            f"machine: nodes {nodes} × devices {devices} is not what {place.launcher} started: {place.world} processes "
            f"on {hosts}; `machine.nodes=auto machine.devices=auto` takes what is there"
        )
    threads = _threads(devices, place) if machine.threads == "auto" else machine.threads
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of several processes, Lightning sets it anew where this is missing
    fast_fp32 = accelerator == "cpu" and machine.fast_fp32 and _use_fast_fp32()
    device = Device(accelerator, devices, threads, fast_fp32, _has_bf16(accelerator), nodes, machine.teachers)
    check_teachers(device)
    return device


def check_teachers(device: Device) -> None:
    """Raise UserError where devices that only teach leave too few that train, or uneven numbers on hosts."""
    if not device.teachers:
        return
    each = device.devices
    fits = [
        teachers
        for teachers in range(1, device.world // 2 + 1)
        if device.world - teachers <= each or (device.world - teachers) % each == 0
    ]
    if device.teachers not in fits:
        choices = f"Choices: {', '.join(map(str, fits))}" if fits else "with one device nothing can lie apart"
        on = f"{device.nodes} hosts of {each} devices" if device.nodes > 1 else f"{device.world} devices"
        raise UserError(
            f"machine.teachers: {device.teachers} of {on} cannot only teach: each needs one that trains, and hosts on "
            f"which any train need equally many of those; {choices}"
        )


def usable_cores() -> int:
    """Return the cores this process may use: those of its affinity, within the limits of its control groups."""
    cores, limit = len(os.sched_getaffinity(0)), control_groups.cores()
    return cores if limit is None else min(cores, limit)


def facts(device: Device) -> dict[str, str]:
    """Return what a report says about where it was made."""
    packages = {name: version(name) for name in _PACKAGES}
    return {
        "machine": device.describe(),
        "processor": _processor(),
        "code": code(),
        "python": platform.python_version(),
        **packages,
    }


def quiet() -> None:
    """Silence what other libraries say that is no news to the user of a run; those that are imported later speak up
    again.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric", "torch.distributed", "datasets", "fsspec", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in _NO_NEWS:
        warnings.filterwarnings("ignore", message=text)


_NO_NEWS = (
    r".*resuming from a checkpoint that ended before the epoch ended.*",  # ours resumes at the very step
    r".*does not have many workers.*",  # padding a batch takes a millisecond
    r".*in eval mode.*",
    r".*was called before the ``update`` method.*",  # a rank may have no validation rows
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*The `srun` command is available on your system.*",  # it is where SLURM is installed; places are our own
    r".*sync_dist=True.*",  # scores are counted over all processes before they are logged
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*`torch\.distributed\.\w+` is deprecated.*",  # by DeepSpeed
    r".*`is_gradient_checkpointing` is deprecated.*",  # by peft
    r".*copying from a non-meta parameter.*",  # where memory is planned, weights of an adapter go nowhere
)


def _accelerator(machine: Machine) -> str:
    if machine.accelerator == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    if machine.accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("machine.accelerator: gpu was asked for, but torch sees none; `auto` or `cpu` run here")
    return machine.accelerator


def _devices(machine: Machine, accelerator: str, place: Place | None) -> int:
    present = torch.cuda.device_count() if accelerator == "gpu" else usable_cores()
    if machine.devices == "auto":
        return place.per_host if place else present if accelerator == "gpu" else 1
    counted = accelerator == "gpu" or place is None  # srun may give each process its own cores: they are not all here
    if counted and machine.devices > present:
        raise UserError(f"machine.devices: {machine.devices} were asked for, {present} are here")
    return machine.devices


def _threads(devices: int, place: Place | None) -> int:
    """Share the cores among the processes of this host; srun says how many each has."""
    cores = usable_cores()
    if place is not None and place.launcher == "srun" and "SLURM_CPUS_PER_TASK" in os.environ:
        return min(cores, int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, cores // devices)


def _use_fast_fp32() -> bool:
    """Send fp32 products to oneDNN if that is as exact as the default on this processor.

    The switch allows oneDNN to compute in bf16; without matrix units (AMX) it stays in fp32 and is up to twice as fast
    as MKL on AMD. Whether it stays exact is measured, not guessed: the error against fp64 must be that of fp32. Below
    AVX-512 oneDNN has no bf16, and the switch switches nothing.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(256, 768, generator=generator), torch.randn(768, 256, generator=generator)
    exact = left.double() @ right.double()
    before = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    error = ((left @ right).double() - exact).abs().max() / exact.abs().max()
    if error > 1e-5:
        torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]
    return bool(error <= 1e-5)


def _has_bf16(accelerator: str) -> bool:
    if accelerator == "gpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name, False)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        units = ", AMX" if torch.cpu.get_capabilities().get("amx_bf16", False) else ""  # bf16 is four times fp32
        capability = torch.backends.cpu.get_cpu_capability() + units
        return f"{names[0]} ({len(names)} cores, {capability})" if names else platform.machine()
    return platform.processor() or platform.machine()
