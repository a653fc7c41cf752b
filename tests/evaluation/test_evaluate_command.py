"""`rrcm evaluate` finds what training logged, for any checkpoint, and says what a checkpoint or shards lack."""

import json
from pathlib import Path

import pytest
from command import rrcm


def logged(run: Path) -> dict[str, float]:
    """The last accuracies that training wrote down."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items() if "_sigma_" in name}


def evaluate(monkeypatch, capsys, tmp_path, *arguments):
    """Results by (measure, σ), and all of the JSON."""
    output = tmp_path / "results.json"
    code, out, err = rrcm(monkeypatch, capsys, "evaluate", *arguments, "--device", "cpu", "-o", output)
    assert code == 0, err
    found = json.loads(output.read_text())
    for row in found["results"]:
        assert f"{100 * row['accuracy']:.2f}" in out
    return {(row["measure"], row["sigma"]): row for row in found["results"]}, found


def test_neighbours_are_as_right_as_training_logged(monkeypatch, capsys, tmp_path, pretrained):
    results, found = evaluate(monkeypatch, capsys, tmp_path, pretrained, "--network", "online")
    for sigma in (0.0, 0.5):
        row = results["knn", sigma]
        assert row["accuracy"] == pytest.approx(logged(pretrained)[f"knn_sigma_{sigma:g}"], abs=1e-6)
        assert row["images"] == 50
        assert row["low"] < row["accuracy"] < row["high"]
    assert results["probe", 0.0]["accuracy"] > 0.25
    assert found["train"]["images"] == 100
    assert found["probe_penalty"] > 0
    assert {measure for measure, _ in results} == {"knn", "probe"}


def test_other_networks_batches_and_workers_of_the_same_checkpoint(monkeypatch, capsys, tmp_path, pretrained):
    options = ("--no-probe", "--sigmas", "0.5,0.5", "--network")
    results, _ = evaluate(monkeypatch, capsys, tmp_path, pretrained, *options, "online", "--batch", 7, "--workers", 1)
    assert results["knn", 0.5]["accuracy"] == pytest.approx(logged(pretrained)["knn_sigma_0.5"], abs=1e-6)
    assert results.keys() == {("knn", 0.5)}
    _, found = evaluate(monkeypatch, capsys, tmp_path, pretrained, *options, "target", "--images", 20, "--bank", 30)
    assert found["network"] == "target"
    assert (found["results"][0]["images"], found["train"]["images"]) == (20, 30)


def test_a_classifier_is_as_right_under_noise_as_training_logged(monkeypatch, capsys, tmp_path, finetuned):
    results, _ = evaluate(monkeypatch, capsys, tmp_path, finetuned)
    assert results.keys() == {("accuracy", 0.0), ("accuracy", 0.25)}
    for sigma in (0.0, 0.25):
        expected = logged(finetuned)[f"accuracy_sigma_{sigma:g}"]
        assert results["accuracy", sigma]["accuracy"] == pytest.approx(expected, abs=1e-6)


def test_a_classifier_can_be_probed_too(monkeypatch, capsys, tmp_path, finetuned, digits):
    results, _ = evaluate(monkeypatch, capsys, tmp_path, finetuned, "--train", digits / "train", "--bank", "400")
    assert {measure for measure, _ in results} == {"accuracy", "knn", "probe"}
    assert results["probe", 0.0]["accuracy"] > results["probe", 0.25]["accuracy"] - 0.2
    assert results["probe", 0.0]["accuracy"] > 0.6


def test_an_average_is_as_right_as_training_logged(monkeypatch, capsys, tmp_path, pretrained):
    results, found = evaluate(monkeypatch, capsys, tmp_path, pretrained, "--no-probe", "--network", "average-0.5")
    assert found["network"] == "average-0.5"
    for sigma in (0.0, 0.5):
        expected = logged(pretrained)[f"average-0.5/knn_sigma_{sigma:g}"]
        assert results["knn", sigma]["accuracy"] == pytest.approx(expected, abs=1e-6)


def test_an_exported_encoder_is_evaluated_on_any_shards_and_sizes(
    monkeypatch, capsys, tmp_path, pretrained, two_classes
):
    encoder = tmp_path / "encoder.safetensors"
    arguments = ("--network", "target", "--output", encoder, "--encoder")
    code, _, err = rrcm(monkeypatch, capsys, "export", pretrained, *arguments)
    assert code == 0, err
    shards = ("--data", two_classes, "--train", two_classes, "--sigmas", "0")
    results, _ = evaluate(monkeypatch, capsys, tmp_path, encoder, *shards)
    assert results["knn", 0.0]["images"] == 6
    assert results["probe", 0.0]["accuracy"] == 1.0


def test_mistakes_are_told(monkeypatch, capsys, tmp_path, pretrained, finetuned, two_classes):
    (tmp_path / "nnet.pth").write_bytes(b"released")
    for arguments, told in (
        ((tmp_path / "nnet.pth",), "is not a weights file of ours: `rrcm import` makes one"),
        ((pretrained,), "holds average-0.5, online and target: choose one by --network"),
        (
            (pretrained, "--network", "average-0.9"),
            "has no average-0.9.safetensors; it has average-0.5.safetensors, online.safetensors, target",
        ),
        ((tmp_path / "absent",), "there is no"),
        ((finetuned, "--data", tmp_path), "--data: "),
        ((finetuned, "--train", tmp_path / "absent"), "--train: "),
        ((finetuned, "--data", two_classes), "knows 10 classes, and"),
        ((finetuned, "--train", two_classes), "have different classes (10 and 2, or other names)"),
        ((finetuned, "--sigmas", "a"), "is not a list of numbers"),
        ((finetuned, "--sigmas", "-1"), "none below 0"),
        ((finetuned, "--sigmas", ","), "must be at least one number"),
        ((finetuned, "--device", "tpu"), "device 'tpu' is not known"),
    ):
        code, _, err = rrcm(monkeypatch, capsys, "evaluate", *arguments)
        assert code == 2
        assert told in err, err
        assert "Traceback" not in err
