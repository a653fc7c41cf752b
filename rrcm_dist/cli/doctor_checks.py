"""What `rrcm doctor` looks at: each check tries the thing itself, and says what it is for and how to mend it."""

import contextlib
import importlib
import io
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rrcm_dist.files import gigabytes

REINSTALL = "pip install -e ."
SHARED_MEMORY = Path("/dev/shm")
ENOUGH_DISK_BYTES = 20e9
"""A few checkpoints of rRCM-B: weights, target and optimiser take about 2 GB each."""
ENOUGH_SHARED_MEMORY_BYTES = 1e9

Status = Literal["ok", "optional", "warning", "missing"]
"""optional: not here, and only some things need it; warning: works, but badly; missing: nothing works without it."""


@dataclass(frozen=True)
class Check:
    """What was found of one thing."""

    name: str
    status: Status
    found: str
    needed_for: str
    mend: str = ""


@dataclass(frozen=True)
class Package:
    """An importable module, and what becomes of a machine without it."""

    module: str
    needed_for: str
    mend: str = REINSTALL
    absent: Status = "missing"
    distribution: str = ""

    def check(self) -> Check:
        """Import it and tell its version."""
        try:
            with _silence():
                importlib.import_module(self.module)
            version = metadata.version(self.distribution or self.module)
        except Exception as error:
            return Check(self.module, self.absent, _first_line(error), self.needed_for, self.mend)
        return Check(self.module, "ok", version, self.needed_for)


PACKAGES = (
    Package("torchvision", "timm's augmentations", distribution="torchvision"),
    Package("timm", "RandAugment, mixup and cutmix in fine-tuning"),
    Package("scipy", "Clopper–Pearson bounds in certification"),
    Package("simplejpeg", "decoding JPEG fast"),
    Package("cv2", "resizing and cropping", distribution="opencv-python-headless"),
    Package("safetensors", "weights and checkpoints"),
    Package("sklearn", "the demo's handwritten digits", absent="optional", distribution="scikit-learn"),
    Package("webdataset", "reading shards with other tools", absent="optional"),
    Package("matplotlib", "plots in reports"),
    Package("ray", "certifying with several GPUs or machines", 'pip install -e ".[cluster]"', "optional"),
    Package("wandb", "watching runs in Weights & Biases", 'pip install -e ".[tracking]"', "optional"),
)


def all_checks() -> list[Callable[[], Check]]:
    """Everything that is looked at, in order (torch before what is built on it); no check raises."""
    packages = [package.check for package in PACKAGES]
    return [python, torch, cuda, bf16, deepspeed, xformers, *packages, cores, shared_memory, disk]


def python() -> Check:
    """The interpreter's version."""
    enough = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", "ok" if enough else "missing", found, "everything", "" if enough else "use Python ≥ 3.11")


def torch() -> Check:
    """torch's version."""
    mend = "pip install 'torch>=2.10' (for this machine's CUDA, see pytorch.org/get-started)"
    try:
        import torch

        major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    except Exception as error:
        return Check("torch", "missing", _first_line(error), "training and certification", mend)
    if (major, minor) < (2, 10):
        return Check("torch", "missing", f"{torch.__version__}, too old", "training and certification", mend)
    from rrcm_dist.torchvision_compat import allow_cpu_torch

    allow_cpu_torch()
    return Check("torch", "ok", torch.__version__, "training and certification")


def cuda() -> Check:
    """The CUDA devices that torch sees."""
    use = "training and certifying anything larger than the demo"
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
        memory = min((torch.cuda.get_device_properties(i).total_memory for i in range(count)), default=0)
    except Exception as error:
        return Check("CUDA devices", "optional", _first_line(error), use, "install torch and the NVIDIA driver")
    if not count:
        built = "built for CUDA" if torch.version.cuda else "built without CUDA"
        mend = "check nvidia-smi and CUDA_VISIBLE_DEVICES" if torch.version.cuda else "install a CUDA build of torch"
        return Check("CUDA devices", "optional", f"none; torch is {built}", use, mend)
    return Check("CUDA devices", "ok", f"{count} × {', '.join(names)}, {gigabytes(memory)}", use)


def bf16() -> Check:
    """A product in bf16 on the device that would be used."""
    try:
        import torch

        if not torch.cuda.is_available():
            return Check("bf16", "optional", "no CUDA device to use it on", "training.precision=bf16 at speed")
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        product = torch.ones(16, 16, dtype=torch.bfloat16, device="cuda")
        (product @ product).sum().item()
    except Exception as error:
        return Check("bf16", "warning", _first_line(error), "training.precision=bf16", "use training.precision=fp32")
    if native:
        return Check("bf16", "ok", "native", "training.precision=bf16")
    return Check("bf16", "warning", "emulated, slowly", "training.precision=bf16", "use training.precision=fp32")


def deepspeed() -> Check:
    """DeepSpeed's version; on a machine without CUDA it must be told to use the CPU."""
    if shutil.which("nvidia-smi") is None:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return Package("deepspeed", "pre-training and fine-tuning", "DS_BUILD_OPS=0 pip install deepspeed").check()


def xformers() -> Check:
    """Whether xFormers' attention runs here; torch's own gives the same numbers."""
    use = "attention=xformers; torch's own attention does the same"
    try:
        import torch

        from rrcm_dist.models.attention import attention_function

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _silence():
            attention_function("xformers", device)
        return Check("xformers", "ok", f"{metadata.version('xformers')}, runs on {device}", use)
    except Exception as error:
        return Check("xformers", "optional", _first_line(error), use, 'pip install -e ".[gpu]" beside a CUDA torch')


def cores() -> Check:
    """CPU cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("CPU cores", "ok", f"{usable} usable", "decoding: data.workers per rank, one core each")


def shared_memory() -> Check:
    """Room in /dev/shm, which loader processes hand batches over in."""
    use = "data.workers above 0"
    if not SHARED_MEMORY.is_dir():
        return Check("shared memory", "ok", f"no {SHARED_MEMORY} on this system", use)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free >= ENOUGH_SHARED_MEMORY_BYTES:
        return Check("shared memory", "ok", f"{gigabytes(free)} free", use)
    mend = "docker run --shm-size=16g, or data.workers=0"
    return Check("shared memory", "warning", f"only {gigabytes(free)} free", use, mend)


def disk() -> Check:
    """Room where runs would be written from here."""
    use = "shards, checkpoints and ledgers"
    free = shutil.disk_usage(Path.cwd()).free
    if free >= ENOUGH_DISK_BYTES:
        return Check("disk", "ok", f"{gigabytes(free)} free in {Path.cwd()}", use)
    found = f"only {gigabytes(free)} free in {Path.cwd()}"
    return Check("disk", "warning", found, use, "make room, or give another output")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Importing some packages talks; a report as JSON must not."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
