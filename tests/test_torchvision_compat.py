"""torchvision and timm can be imported, whichever torch is beside them."""

import subprocess
import sys

import pytest

SCRIPT = """
{before}
from rrcm_dist.torchvision_compat import allow_cpu_torch
allow_cpu_torch()
allow_cpu_torch()
import timm, torch, torchvision
from torchvision.transforms import v2
print(tuple(v2.Resize(8)(torch.zeros(3, 16, 16)).shape))
"""


@pytest.mark.parametrize("before", ["", "try:\n    import torchvision\nexcept RuntimeError:\n    pass"])
def test_torchvision_can_be_imported_even_after_a_failed_attempt(before: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(before=before)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(3, 8, 8)\n"
