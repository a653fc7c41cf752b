"""What `rrcm embed` writes is what the network gives, row by row, in bounded memory; and its refusals."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import rrcm

from rrcm_dist.data.index import content_identity, load_index
from rrcm_dist.data.loaders import evaluation_images
from rrcm_dist.evaluation import embedding
from rrcm_dist.evaluation.images import noisy_images
from rrcm_dist.files import sha256
from rrcm_dist.models.checkpoint_files import chosen_weights
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.noise import conditioning_level


def embed(monkeypatch, capsys, *arguments):
    code, out, err = rrcm(monkeypatch, capsys, "embed", *arguments, "--device", "cpu")
    assert code == 0, err
    return out


def expected(file, index, ids, sigma, final_norm=True):
    """Representations computed the plain way."""
    network, recipe = trained_network(file)
    pixels = torch.cat([part.images for part in evaluation_images(index, recipe.encoder.image_size, ids)])
    noisy = noisy_images(pixels, list(ids), sigma, recipe.seed, torch.device("cpu"))
    t = torch.full((len(noisy),), conditioning_level(recipe.noise, sigma))
    with torch.no_grad():
        return network.encoder(noisy, t, final_norm).numpy()


def test_rows_are_the_networks_representations_with_their_names(monkeypatch, capsys, tmp_path, pretrained, digits):
    monkeypatch.setattr(embedding, "ROWS_PER_GROUP", 100)
    out = embed(
        monkeypatch, capsys, pretrained, digits / "held-out", "-o", tmp_path / "all.parquet", "--network", "target",
        "--batch", "40", "--workers", "1",
    )  # fmt: skip
    index = load_index(digits / "held-out")
    assert f"{len(index)} images, float32 of width 32, sigma 0" in out
    file = pq.ParquetFile(tmp_path / "all.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [120, 120]
    table = file.read()
    ids = np.arange(len(index))
    assert table["sample_id"].to_pylist() == ids.tolist()
    assert table["key"].to_pylist() == index.keys.tolist()
    assert table["label"].to_pylist() == index.label.tolist()
    assert table["class"].to_pylist() == [index.classes[label] for label in index.label]
    numbers = np.stack(table["representation"].to_numpy())
    assert numbers.dtype == np.float32
    weights = chosen_weights(pretrained, "target")
    np.testing.assert_allclose(numbers, expected(weights, index, ids, 0.0), rtol=1e-5, atol=1e-5)
    about = json.loads(table.schema.metadata[b"rrcm-dist"])
    assert (about["format"], about["version"], about["network"]) == ("rrcm-dist representations", 1, "target")
    assert (about["checkpoint"], about["checkpoint_sha256"]) == (str(weights), sha256(weights))
    assert (about["sigma"], about["data_identity"]) == (0.0, content_identity(index))
    assert about["recipe"]["encoder"]["width"] == 32


def test_noise_is_that_of_the_image_and_half_the_size_is_float16(monkeypatch, capsys, tmp_path, finetuned, digits):
    options = ("--images", "30", "--half", "--batch", "11")
    embed(monkeypatch, capsys, finetuned, digits / "held-out", "-o", tmp_path / "noisy.parquet", *options)
    table = pq.read_table(tmp_path / "noisy.parquet")
    index, ids = load_index(digits / "held-out"), table["sample_id"].to_numpy()
    assert (len(ids), ids[0], ids[-1]) == (30, 0, len(index) - 1)
    numbers = np.stack(table["representation"].to_numpy())
    assert numbers.dtype == np.float16
    truth = expected(chosen_weights(finetuned, None), index, ids, 0.25)  # the σ of its fine-tuning
    np.testing.assert_allclose(numbers.astype(np.float32), truth, rtol=1e-3, atol=1e-3)


def test_images_that_cannot_be_decoded_are_left_out_and_counted(monkeypatch, capsys, tmp_path, pretrained, digits):
    folder = shutil.copytree(digits / "held-out", tmp_path / "damaged")
    index = load_index(folder)
    for sample in (0, 7):
        with open(folder / index.shards[index.shard_of[sample]].name, "r+b") as shard:
            shard.seek(int(index.offset[sample]))
            shard.write(bytes(int(index.length[sample])))
    options = ("--network", "online", "--images", str(len(index)))
    out = embed(monkeypatch, capsys, pretrained, folder, "-o", tmp_path / "a.parquet", *options)
    assert "(2 could not be decoded and are left out)" in out
    table = pq.read_table(tmp_path / "a.parquet")
    assert set(range(len(index))) - set(table["sample_id"].to_pylist()) == {0, 7}
    assert json.loads(table.schema.metadata[b"rrcm-dist"])["images"] == len(index)


def test_a_failure_leaves_no_file(monkeypatch, capsys, tmp_path, pretrained, digits):
    folder = shutil.copytree(digits / "held-out", tmp_path / "short")
    index = load_index(folder)
    options = ("--network", "online", "--device", "cpu", "--batch", "16")
    last = folder / index.shards[-1].name
    real = embedding.read_once

    def cut_short(*arguments):
        for number, read in enumerate(real(*arguments)):
            if number == 1:
                last.write_bytes(b"")
            yield read

    monkeypatch.setattr(embedding, "read_once", cut_short)
    code, _, err = rrcm(monkeypatch, capsys, "embed", pretrained, folder, "-o", tmp_path / "a.parquet", *options)
    assert code == 1
    assert last.name in err
    assert list(tmp_path.glob("*.parquet*")) + list(tmp_path.glob(".*")) == []


def test_mistakes_are_told(monkeypatch, capsys, tmp_path, pretrained, finetuned, digits):
    held_out, there = digits / "held-out", tmp_path / "there.parquet"
    there.write_bytes(b"")
    for arguments, told in (
        ((finetuned, held_out, "-o", tmp_path / "a.npz"), "must end in .parquet"),
        ((finetuned, held_out, "-o", there), "exists already"),
        ((pretrained, held_out, "-o", tmp_path / "a.parquet"), "choose one by --network"),
        ((finetuned, tmp_path, "-o", tmp_path / "a.parquet"), "SHARDS: "),
        ((finetuned, held_out, "-o", tmp_path / "a.parquet", "--sigma", "inf"), "should be finite"),
        ((finetuned, held_out, "-o", tmp_path / "a.parquet", "--network", "online"), "has no online.safetensors"),
    ):
        code, _, err = rrcm(monkeypatch, capsys, "embed", *arguments)
        assert code == 2
        assert told in err, err


@pytest.mark.parametrize("command", ["evaluate", "embed", "export"])
def test_the_help_shows_how(monkeypatch, capsys, command):
    code, out, _ = rrcm(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert f"rrcm {command} runs/" in out
