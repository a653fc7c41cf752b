"""What is exported for timm loads there strictly, with the network's numbers, preprocessing and names of classes."""

import json

import pytest
import torch
from tiny import IMAGE_SIZE
from typer.testing import CliRunner

from rrcm_dist.cli.main import build_app
from rrcm_dist.data.index import load_index
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models import exporting_timm
from rrcm_dist.models.checkpoint_files import OwnMetadata, own_metadata
from rrcm_dist.models.classifier import load_classifier
from rrcm_dist.models.exporting_timm import export_timm
from rrcm_dist.models.rebuilding import network_of, trained_network
from rrcm_dist.models.weights import write_weights
from rrcm_dist.noise import conditioning_level
from rrcm_dist.torchvision_compat import allow_cpu_torch

allow_cpu_torch()

import timm  # noqa: E402


def run(*arguments):
    return CliRunner().invoke(build_app(), ["export", *map(str, arguments)])


def in_timm(folder, **changes):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **changes).eval()


def variant(file, output, **changes):
    """The weights of `file` under its recipe with other values."""
    metadata = own_metadata(file)
    recipe = metadata.recipe.model_copy(update=changes)
    network = network_of(recipe)
    network.load_state_dict(trained_network(file)[0].state_dict())
    write_weights(output, network.state_dict(), OwnMetadata(metadata.network, recipe).as_strings())
    return output


@pytest.mark.parametrize("sigma", [0.0, 0.25, 1.0])
def test_timm_computes_the_encoders_representations(tmp_path, encoder_file, sigma):
    result = run(encoder_file, "--format", "timm", "--output", tmp_path / "timm", "--sigma", sigma)
    assert result.exit_code == 0, result.output
    network, recipe = trained_network(encoder_file)
    noisy = torch.rand(5, 3, 16, 16) * 2 - 1 + 2 * sigma * torch.randn(5, 3, 16, 16)
    t = torch.full((5,), conditioning_level(recipe.noise, sigma))
    with torch.no_grad():
        torch.testing.assert_close(in_timm(tmp_path / "timm")(noisy), network.encoder(noisy, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("final_norm", [True, False])
def test_timm_computes_the_classifiers_logits(tmp_path, classifier_file, final_norm):
    file = variant(classifier_file, tmp_path / "variant.safetensors", final_norm=final_norm)
    assert run(file, "--format", "timm", "--output", tmp_path / "timm").exit_code == 0
    pixels = torch.rand(5, 3, 16, 16) + 0.5 * torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected = load_classifier(file, 0.5)(pixels)
        torch.testing.assert_close(in_timm(tmp_path / "timm")(pixels * 2 - 1), expected, rtol=1e-5, atol=1e-5)
        network, recipe = trained_network(file)
        t = torch.full((5,), conditioning_level(recipe.noise, 0.5))
        representations = network.encoder(pixels * 2 - 1, t, final_norm)
        headless = in_timm(tmp_path / "timm", num_classes=0)
        torch.testing.assert_close(headless(pixels * 2 - 1), representations, rtol=1e-5, atol=1e-5)
        assert run(file, "--format", "timm", "--output", tmp_path / "encoder", "--encoder").exit_code == 0
        encoder = in_timm(tmp_path / "encoder")
        torch.testing.assert_close(encoder(pixels * 2 - 1), representations, rtol=1e-5, atol=1e-5)


def test_preprocessing_names_of_classes_and_a_card_are_in_the_folder(tmp_path, classifier_file, digits):
    ten = own_metadata(classifier_file).recipe.model_copy(update={"classes": 10})
    file = tmp_path / "ten.safetensors"
    write_weights(file, network_of(ten).state_dict(), OwnMetadata("model", ten).as_strings())
    result = run(file, "--format", "timm", "--output", tmp_path / "timm", "--classes-of", digits / "train")
    assert result.exit_code == 0, result.output
    model = in_timm(tmp_path / "timm")
    assert tuple(model.pretrained_cfg["label_names"]) == load_index(digits / "train").classes
    assert model.num_classes == 10
    preprocessing = timm.data.resolve_model_data_config(model)
    assert list(preprocessing["input_size"]) == [3, IMAGE_SIZE, IMAGE_SIZE]
    assert list(preprocessing["mean"]) == list(preprocessing["std"]) == [0.5, 0.5, 0.5]
    assert preprocessing["crop_pct"] == 1.0
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["rrcm"]["sigma"] == 0.5
    card = (tmp_path / "timm" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-classification\n")
    assert "model(images + 1 * torch.randn_like(images))" in card


def test_classes_without_names_are_said(tmp_path, classifier_file):
    result = run(classifier_file, "--format", "timm", "--output", tmp_path / "timm")
    assert result.exit_code == 0
    assert "the classes have no names: shards cannot be read" in result.output
    assert "label_names" not in json.loads((tmp_path / "timm" / "config.json").read_text())


def test_a_folder_that_timm_reads_otherwise_is_not_kept(tmp_path, encoder_file, monkeypatch):
    monkeypatch.setattr(exporting_timm, "ARCHITECTURE", "vit_base_patch16_224")  # another ε in its LayerNorms
    with pytest.raises(RunFailure, match="numbers that differ by"):
        export_timm(encoder_file, tmp_path / "timm", 0.0)
    monkeypatch.setattr(exporting_timm, "ARCHITECTURE", "resnet18")
    with pytest.raises(RunFailure, match="cannot load what was exported"):
        export_timm(encoder_file, tmp_path / "timm", 0.0)
    assert [path.suffix for path in tmp_path.iterdir() if path.name.startswith((".", "timm"))] == []


def test_mistakes_are_told_before_anything_is_written(tmp_path, encoder_file, classifier_file, digits):
    (tmp_path / "there").mkdir()
    timm_format = ("--format", "timm", "--output", tmp_path / "timm")
    for arguments, told in (
        ((encoder_file, "--format", "timm", "--output", tmp_path / "there"), "exists already"),
        ((encoder_file, "--format", "timm", "--output", tmp_path / "a.onnx"), "which writes a folder"),
        ((encoder_file, *timm_format, "--classes-of", digits / "train"), "has no classes"),
        ((classifier_file, *timm_format, "--classes-of", digits / "train"), "10 names of classes do not go with"),
        ((classifier_file, *timm_format, "--classes-of", tmp_path / "absent"), "does not exist"),
        ((encoder_file, "--output", tmp_path / "a.pt2", "--sigma", "0.5"), "--sigma goes with --format timm and onnx"),
        ((classifier_file, "--output", tmp_path / "a.pt2", "--classes-of", digits), "--classes-of goes with"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, InvalidInput), arguments
        assert told in str(error)
    assert not (tmp_path / "timm").exists()
