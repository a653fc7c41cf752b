"""What is exported as ONNX runs in ONNX Runtime at any batch size, with the network's numbers."""

import importlib.util
import json

import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from rrcm_dist.cli.main import build_app
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models import exporting_onnx
from rrcm_dist.models.classifier import load_classifier
from rrcm_dist.models.exporting_onnx import export_onnx
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.noise import conditioning_level


def run(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def in_onnx_runtime(file, pixels, name):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([name], {"images": pixels.numpy()})[0])


def noisy_pixels(images, sigma):
    return torch.rand(images, 3, 16, 16) + sigma * torch.randn(images, 3, 16, 16)


def test_onnx_computes_the_classifiers_logits_at_any_batch_size(tmp_path, classifier_file):
    result = run(classifier_file, "--output", tmp_path / "classifier.onnx")
    assert result.exit_code == 0, result.output
    takes = "images: (N, 3, 16, 16) float32, [0, 1] pixels plus noise of standard deviation 0.5"
    assert takes in result.output
    classifier = load_classifier(classifier_file, 0.5)
    for images in (1, 2, 7):
        pixels = noisy_pixels(images, 0.5)
        logits = in_onnx_runtime(tmp_path / "classifier.onnx", pixels, "logits")
        with torch.no_grad():
            torch.testing.assert_close(logits, classifier(pixels), rtol=1e-4, atol=1e-4)
    model = onnx.load(tmp_path / "classifier.onnx")
    onnx.checker.check_model(model, full_check=True)
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["rrcm-dist"])
    assert about["takes"] == takes
    assert list(tmp_path.glob("*.data")) == []


@pytest.fixture(scope="module")
def encoder_at_a_quarter(encoder_file, tmp_path_factory):
    """The encoder at σ 0.25."""
    folder = tmp_path_factory.mktemp("onnx")
    result = run(encoder_file, "--format", "onnx", "--output", folder, "--sigma", "0.25")
    assert result.exit_code == 0, result.output
    return folder / "online.onnx"


def test_onnx_computes_the_encoders_representations_at_the_level_asked_for(encoder_file, encoder_at_a_quarter):
    network, recipe = trained_network(encoder_file)
    pixels = noisy_pixels(3, 0.25)
    representations = in_onnx_runtime(encoder_at_a_quarter, pixels, "representations")
    t = torch.full((3,), conditioning_level(recipe.noise, 0.25))
    with torch.no_grad():
        torch.testing.assert_close(representations, network.encoder(pixels * 2 - 1, t), rtol=1e-4, atol=1e-4)


def test_numbers_that_differ_are_not_kept(tmp_path, encoder_file, encoder_at_a_quarter, monkeypatch):
    def write_another_level(_module, file, *_others):
        file.write_bytes(encoder_at_a_quarter.read_bytes())

    monkeypatch.setattr(exporting_onnx, "_write", write_another_level)
    export_onnx(encoder_file, tmp_path / "out" / "quarter.onnx", 0.25)
    with pytest.raises(RunFailure, match="differs from the network by"):
        export_onnx(encoder_file, tmp_path / "out" / "clean.onnx", 0.0)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["quarter.onnx"]


def test_a_missing_package_and_weights_too_large_are_told(tmp_path, encoder_file, monkeypatch):
    monkeypatch.setattr(exporting_onnx, "LARGEST_FILE", 1000)
    with pytest.raises(InvalidInput, match=r"one \.onnx holds less than 1\.0 kB, not"):
        export_onnx(encoder_file, tmp_path / "a.onnx", 0.0)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(
        InvalidInput, match=r"ONNX needs onnxscript, which is not here: pip install 'rrcm-dist\[onnx\]'"
    ):
        export_onnx(encoder_file, tmp_path / "a.onnx", 0.0)
    assert not (tmp_path / "a.onnx").exists()
