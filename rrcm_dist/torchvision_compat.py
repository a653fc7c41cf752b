"""Lets torchvision (and timm, which imports it) be imported beside a CPU build of torch.

Package registries carry torchvision built for CUDA. Beside a CPU torch its C++ library does not load, and `import
torchvision` stops at "operator torchvision::nms does not exist". Declaring the operators it looks for is enough for all
its Python parts. Call `allow_cpu_torch()` before importing torchvision or timm.
"""

import sys
from functools import cache

import torch

OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@cache
def allow_cpu_torch() -> None:
    """Make `import torchvision` work; does nothing where it works by itself."""
    if _imports():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _kept_alive.append(library)


_kept_alive: list[torch.library.Library] = []
"""A library's declarations vanish with it."""


def _imports() -> bool:
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True
