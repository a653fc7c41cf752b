"""Released files come in whole, every key accounted for, and give the released code's numbers."""

import json

import pytest
import torch
from golden.reference import arrays, network
from released_files import FINETUNE, PRETRAIN, recipe_file, released, released_finetuned, saved, wrapped
from safetensors import safe_open
from typer.testing import CliRunner

from rrcm_dist.cli.main import build_app
from rrcm_dist.config.load import load_recipe
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models.checkpoint_files import own_metadata
from rrcm_dist.models.classifier import load_classifier
from rrcm_dist.models.importing import import_weights
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.training.starting_point import start_encoder


@pytest.fixture
def pretrain(tmp_path):
    return load_recipe(recipe_file(tmp_path, PRETRAIN), kind="pretrain")


@pytest.fixture
def finetune(tmp_path):
    return load_recipe(recipe_file(tmp_path, FINETUNE), kind="finetune")


@pytest.mark.parametrize("wrap", [dict, wrapped], ids=["plain", "module."])
def test_an_imported_online_network_gives_the_released_outputs(tmp_path, pretrain, wrap):
    source = saved(wrap(released("online")), tmp_path / "nnet.pth")
    report = import_weights(source, pretrain, tmp_path / "own.safetensors")
    assert (report.network, report.count("loaded"), len(report.keys)) == ("online", 41, 41)
    imported, recipe = trained_network(tmp_path / "own.safetensors")
    assert recipe == pretrain
    with torch.no_grad():
        representations = imported.encoder(arrays()["x_start"], arrays()["eval_sigma"])
        projections = imported.projector(representations[None])[0]
    for ours, reference in ((representations, arrays()["eval_cls"]), (projections, arrays()["eval_projection"])):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize(("name", "expected"), [
    ("nnet.pth", "online"), ("target_model.pth", "target"), ("nnet_ema.pth", "target"), ("other.pth", "online"),
])  # fmt: skip
def test_the_network_goes_by_the_files_name_unless_said(tmp_path, pretrain, name, expected):
    source = saved(released("target"), tmp_path / name)
    assert import_weights(source, pretrain, tmp_path / "a.safetensors").network == expected
    assert own_metadata(tmp_path / "a.safetensors").network == expected
    assert import_weights(source, pretrain, tmp_path / "b.safetensors", "online").network == "online"


@pytest.mark.parametrize("wrap", [dict, wrapped], ids=["plain", "module."])
def test_an_imported_classifier_is_ready_to_be_certified(tmp_path, finetune, wrap):
    weights = released_finetuned()
    source = saved(wrap(weights), tmp_path / "tuned.net")
    report = import_weights(source, finetune, tmp_path / "model.safetensors")
    assert report.network == "model"
    assert {key.released for key in report.keys if key.outcome == "not used"} == {
        name for name in wrap(weights) if "projection_head" in name
    }
    classifier = load_classifier(tmp_path / "model.safetensors", 0.5)
    pixels = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        representations = network("online").eval().encoder(pixels * 2 - 1, torch.full((3,), 0.9654169))
        expected = representations @ weights["linear_head.weight"].T + weights["linear_head.bias"]
        torch.testing.assert_close(classifier(pixels), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InvalidInput, match=r"fine-tuned for sigma 0\.5, not 0\.25"):
        load_classifier(tmp_path / "model.safetensors", 0.25)


@pytest.mark.parametrize("with_projector", [True, False])
def test_fine_tuning_starts_from_an_imported_file(tmp_path, pretrain, finetune, with_projector):
    weights = {n: t for n, t in released("target").items() if with_projector or not n.startswith("projection_head")}
    report = import_weights(saved(weights, tmp_path / "nnet.pth"), pretrain, tmp_path / "own.safetensors")
    assert report.has_projector is with_projector
    assert report.count("kept as initialised") == (0 if with_projector else 13)
    recipe = finetune.model_copy(update={"start_from": str(tmp_path / "own.safetensors")})
    model = FinetuningNetwork(recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise)
    start_encoder(model, recipe)
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_our_own_files_can_be_imported_again(tmp_path, pretrain):
    import_weights(saved(released("online"), tmp_path / "nnet.pth"), pretrain, tmp_path / "a.safetensors")
    report = import_weights(tmp_path / "a.safetensors", pretrain, tmp_path / "b.safetensors")
    assert (report.count("loaded"), len(report.keys)) == (41, 41)


def test_tensors_of_another_shape_are_all_named(tmp_path, pretrain):
    weights = released("online")
    weights["pos_embed"], weights["norm.bias"] = torch.zeros(1, 50, 48), torch.zeros(47)
    with pytest.raises(InvalidInput) as caught:
        import_weights(saved(weights, tmp_path / "nnet.pth"), pretrain, tmp_path / "own.safetensors")
    assert "encoder.pos_embed: (1, 50, 48) there, (1, 18, 48) here" in str(caught.value)
    assert "encoder.norm.bias: (47,) there, (48,) here" in str(caught.value)
    assert not (tmp_path / "own.safetensors").exists()


@pytest.mark.parametrize(("dropped", "named"), [
    ("blocks.1.attn.qkv.weight", "encoder.blocks.1.attn.qkv.weight"),
    ("projection_head.4.running_var", "projector.4.running_var"),
])  # fmt: skip
def test_a_missing_part_of_the_encoder_or_half_a_projector_is_refused(tmp_path, pretrain, dropped, named):
    weights = released("online")
    del weights[dropped]
    with pytest.raises(InvalidInput, match=f"lacks tensors that are needed: {named}$"):
        import_weights(saved(weights, tmp_path / "nnet.pth"), pretrain, tmp_path / "own.safetensors")


def test_kinds_of_file_and_recipe_must_agree(tmp_path, pretrain, finetune):
    tuned = saved(released_finetuned(), tmp_path / "tuned.net")
    nnet = saved(released("online"), tmp_path / "nnet.pth")
    output = tmp_path / "own.safetensors"
    for source, recipe, network_name, told in (
        (tuned, pretrain, None, "has a classification head.*give a fine-tuning recipe"),
        (nnet, finetune, None, "has no classification head.*give a pre-training recipe"),
        (nnet, pretrain, "model", "choose online or target"),
        (tmp_path / "absent.pth", pretrain, None, "no weights file"),
    ):
        with pytest.raises(InvalidInput, match=told):
            import_weights(source, recipe, output, network_name)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(InvalidInput, match="exists already"):
        import_weights(nnet, pretrain, tmp_path / "a.safetensors")
    with pytest.raises(InvalidInput, match=r"must end in \.safetensors"):
        import_weights(nnet, pretrain, tmp_path / "own.bin")


class Executed:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in the file was run')",))


def test_files_that_are_no_plain_weights_are_refused_and_none_of_their_code_is_run(tmp_path, pretrain):
    output = tmp_path / "own.safetensors"
    (tmp_path / "noise.pth").write_bytes(b"\x00\x01" * 100)
    saved({**released("online"), "evil": Executed()}, tmp_path / "evil.pth")
    saved({"step": 3, "loss": 0.1}, tmp_path / "step.pth")
    saved({**released("online"), "norm.bias": torch.full((48,), torch.nan)}, tmp_path / "nan.pth")
    whole = saved(released("online"), tmp_path / "nnet.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name, told in (
        ("noise.pth", "noise.pth"),
        ("cut.pth", "cut.pth"),
        ("evil.pth", "is no weights file that can be read safely$"),
        ("step.pth", "holds no tensors by name.*step, loss"),
        ("nan.pth", "not finite, in encoder.norm.bias"),
    ):
        with pytest.raises(RunFailure, match=told):
            import_weights(tmp_path / name, pretrain, output)
    assert not output.exists()


def test_the_command_lists_every_key_and_writes_a_report(tmp_path):
    source = saved(wrapped(released("online")), tmp_path / "nnet.pth")
    output, report = tmp_path / "online.safetensors", tmp_path / "report.json"
    arguments = ["import", source, "--recipe", recipe_file(tmp_path, PRETRAIN), "temperature=0.3", "--output", output]
    result = CliRunner().invoke(build_app(), [*map(str, arguments), "--report", str(report)])
    assert result.exit_code == 0, result.output
    for name in wrapped(released("online")):
        assert any(line.split()[:2] == ["loaded", name] for line in result.output.splitlines()), name
    assert "41 tensors loaded, 0 kept as initialised, 0 not used" in result.output
    told = json.loads(report.read_text())
    assert told["network"] == "online"
    assert told["keys"][0] == {
        "outcome": "loaded", "released": "module.cls_token", "ours": "encoder.cls_token", "shape": [1, 1, 48],
    }  # fmt: skip
    with safe_open(output, framework="pt") as opened:
        metadata = opened.metadata()
    assert (metadata["format"], metadata["kind"], metadata["network"]) == ("rrcm-dist", "pretrain", "online")
    assert json.loads(metadata["recipe"])["temperature"] == 0.3
