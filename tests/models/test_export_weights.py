"""What is exported runs in torch alone, at any batch size, with the same numbers."""

import json
import subprocess
import sys

import pytest
import torch
from released_files import released, saved
from safetensors.torch import load_file
from typer.testing import CliRunner

from rrcm_dist.cli.main import build_app
from rrcm_dist.errors import InvalidInput
from rrcm_dist.files import sha256
from rrcm_dist.models.checkpoint_files import chosen_weights, own_metadata
from rrcm_dist.models.classifier import load_classifier
from rrcm_dist.models.rebuilding import trained_network

ALONE = """
import sys
sys.modules["rrcm_dist"] = None  # importing it raises, wherever it is installed
import torch
module = torch.export.load("network.pt2").module()
inputs = torch.load("inputs.pt")
torch.save([module(*tensors) for tensors in inputs], "outputs.pt")
"""
BATCHES = (1, 2, 7)


def run(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def outputs_in_torch_alone(program, inputs, folder):
    """Of a Python that has torch but not this project."""
    folder.mkdir()
    program.rename(folder / "network.pt2")
    torch.save(inputs, folder / "inputs.pt")
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "outputs.pt")


def assert_equal_but_for_rounding(actual, expected):
    """Every output is a sum of terms as large as the largest; a program may add them in another order."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_an_exported_classifier_runs_in_torch_alone(tmp_path, classifier_file):
    result = run(classifier_file, "--output", tmp_path / "classifier.pt2")
    assert result.exit_code == 0, result.output
    assert "(N, 3, 16, 16) float32, [0, 1] pixels plus noise of standard deviation 0.5" in result.output
    inputs = [(torch.rand(n, 3, 16, 16) + 0.5 * torch.randn(n, 3, 16, 16),) for n in BATCHES]
    outputs = outputs_in_torch_alone(tmp_path / "classifier.pt2", inputs, tmp_path / "elsewhere")
    classifier = load_classifier(classifier_file, 0.5)
    for (noisy,), logits in zip(inputs, outputs, strict=True):
        with torch.no_grad():
            assert_equal_but_for_rounding(logits, classifier(noisy))


def test_an_exported_encoder_runs_in_torch_alone(tmp_path, encoder_file):
    result = run(encoder_file, "--output", tmp_path / "folder", "--format", "torch")
    assert result.exit_code == 0, result.output
    inputs = [(torch.randn(n, 3, 16, 16), torch.linspace(0.002, 80, n)) for n in BATCHES]
    outputs = outputs_in_torch_alone(tmp_path / "folder" / "online.pt2", inputs, tmp_path / "elsewhere")
    network, _ = trained_network(encoder_file)
    for (noisy, t), representations in zip(inputs, outputs, strict=True):
        with torch.no_grad():
            assert_equal_but_for_rounding(representations, network.encoder(noisy, t))


def test_exported_safetensors_hold_the_same_tensors_and_the_recipe(tmp_path, encoder_file):
    assert run(encoder_file, "--output", tmp_path / "copy.safetensors").exit_code == 0
    before, after = load_file(encoder_file), load_file(tmp_path / "copy.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert own_metadata(tmp_path / "copy.safetensors") == own_metadata(encoder_file)


def test_an_encoder_can_be_exported_without_the_head_or_the_projector(tmp_path, classifier_file, encoder_file):
    for file in (classifier_file, encoder_file):
        assert run(file, "--output", tmp_path / f"encoder-of-{file.name}", "--encoder").exit_code == 0
        exported = load_file(tmp_path / f"encoder-of-{file.name}")
        whole = load_file(file)
        assert exported.keys() == {name for name in whole if name.startswith("encoder.")} < whole.keys()
        assert all(torch.equal(tensor, whole[name]) for name, tensor in exported.items())


def test_a_checkpoint_with_two_networks_asks_which(tmp_path, encoder_file):
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000000004"
    checkpoint.mkdir(parents=True)
    for name in ("online", "target"):
        (checkpoint / f"{name}.safetensors").write_bytes(encoder_file.read_bytes())
    (checkpoint / "average-0.9.safetensors").write_text("left there by another run")
    listed = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in checkpoint.glob("[ot]*.safetensors")}
    (checkpoint / "manifest.json").write_text(json.dumps({"files": listed}))
    with pytest.raises(InvalidInput, match="holds online and target: choose one by --network"):
        chosen_weights(tmp_path / "run", None)
    assert chosen_weights(tmp_path / "run", "online") == checkpoint / "online.safetensors"
    with pytest.raises(InvalidInput, match=r"has no average-0.9.safetensors; it has online"):
        chosen_weights(tmp_path / "run", "average-0.9")
    with pytest.raises(InvalidInput, match=r"has no model\.safetensors; it has online\.safetensors, target"):
        chosen_weights(tmp_path / "run", "model")
    with pytest.raises(InvalidInput, match="holds the online network, not the target one"):
        chosen_weights(encoder_file, "target")


def test_mistakes_are_told(tmp_path, encoder_file):
    released_file = saved(released("online"), tmp_path / "nnet.pth")
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ((tmp_path / "absent", "--output", tmp_path / "a.pt2"), "there is no"),
        ((tmp_path / "empty", "--output", tmp_path / "a.pt2"), "has no weights"),
        ((released_file, "--output", tmp_path / "a.pt2"), "is not a weights file of ours: `rrcm import`"),
        ((released_file, "--output", tmp_path / "a.safetensors"), "is not a weights file of ours: `rrcm import`"),
        ((encoder_file, "--output", encoder_file), "exists already"),
        ((encoder_file, "--output", tmp_path / "a.pt2", "--format", "safetensors"), "does not go with --format"),
        ((encoder_file, "--output", tmp_path / "classifier.pt"), "ends in .safetensors, .pt2 or .onnx"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, InvalidInput)
        assert told in str(error)
