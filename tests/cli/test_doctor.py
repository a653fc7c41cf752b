import json
import os
import subprocess
import sys

import pytest

from rrcm_dist.cli import doctor_checks
from rrcm_dist.cli.doctor_checks import Package

DOCTOR = "import typer; from rrcm_dist.cli.door import enter; from rrcm_dist.cli.doctor_command import command; "
DOCTOR += "app = typer.Typer(); app.command()(command); enter(lambda: app(standalone_mode=False))"


def doctor(*options, before=""):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", before + DOCTOR, *options], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.slow
def test_json_holds_nothing_else_and_every_trouble_has_a_mend():
    ended = doctor("--json")
    assert ended.returncode == 0, ended.stderr
    checks = json.loads(ended.stdout)
    assert {"python", "torch", "deepspeed", "xformers", "wandb", "disk"} <= {check["name"] for check in checks}
    assert all(check["found"] and check["needed_for"] for check in checks)
    assert all(check["mend"] for check in checks if check["status"] in ("missing", "warning"))


@pytest.mark.slow
def test_something_essential_missing_ends_with_1_and_its_name():
    ended = doctor(before="import sys; sys.modules['scipy'] = None; ")
    assert ended.returncode == 1
    assert "missing here: scipy" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_absent_package_is_told_with_how_to_mend_it():
    check = Package("no_such_module_here", "this test", "pip install nothing", absent="optional").check()
    assert (check.status, check.mend) == ("optional", "pip install nothing")
    assert "no_such_module_here" in check.found


def test_little_room_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor_checks, "ENOUGH_DISK_BYTES", 1e30)
    monkeypatch.setattr(doctor_checks, "ENOUGH_SHARED_MEMORY_BYTES", 1e30)
    assert doctor_checks.disk().status == "warning"
    if doctor_checks.SHARED_MEMORY.is_dir():
        assert doctor_checks.shared_memory().status == "warning"
