import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from rrcm_dist.data.index import load_index
from rrcm_dist.errors import InvalidInput, RunFailure
from shards.building import Options, build
from shards.cifar10 import BATCHES, CLASSES, cifar10
from shards.digits import digits


@pytest.fixture
def official_batches(tmp_path):
    """A folder as cifar-10-python.tar.gz unpacks to, with 20 images a batch instead of 10 000."""
    folder = tmp_path / "cifar" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    for name in (*BATCHES["train"], *BATCHES["test"]):
        labels = [number % 10 for number in generator.permutation(20).tolist()]
        batch = {b"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), b"labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}))
    return tmp_path / "cifar"


def stored_pixels(folder):
    index = load_index(folder)
    images = []
    for row in range(len(index)):
        with open(folder / index.shards[index.shard_of[row]].name, "rb") as file:
            file.seek(int(index.offset[row]))
            images.append(np.asarray(Image.open(io.BytesIO(file.read(int(index.length[row]))))))
    return index, np.stack(images)


def test_official_batches_keep_every_pixel_and_their_order(official_batches, tmp_path):
    source = cifar10(official_batches, "test")
    build(source, tmp_path / "out", Options("sorted", 0, 8, None), {}, jobs=1)
    index, pixels = stored_pixels(tmp_path / "out")
    batch = pickle.loads((official_batches / "cifar-10-batches-py" / "test_batch").read_bytes())
    assert np.array_equal(pixels, batch[b"data"].reshape(20, 3, 32, 32).transpose(0, 2, 3, 1))
    assert index.label.tolist() == batch[b"labels"]
    assert index.classes == CLASSES
    assert index.keys[3] == "test_batch/00003"


def test_the_five_training_batches_are_taken_from_either_folder_name(official_batches):
    outer, inner = cifar10(official_batches, "train"), cifar10(official_batches / "cifar-10-batches-py", "train")
    assert len(outer.entries) == 100
    assert outer.fingerprint == inner.fingerprint
    assert outer.fingerprint != cifar10(official_batches, "test").fingerprint


def test_cifar10_is_taken_from_folders_of_images_too(tmp_path, make_photograph):
    for split, count in (("train", 2), ("test", 1)):
        for name in CLASSES:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                make_photograph(number, (32, 32)).save(tmp_path / split / name / f"{number}.png")
    assert len(cifar10(tmp_path, "train").entries) == 20
    assert len(cifar10(tmp_path, "test").entries) == 10
    assert cifar10(tmp_path / "test", "test").classes == CLASSES


def test_what_is_not_cifar10_is_refused_in_words(official_batches, source_folder, tmp_path):
    with pytest.raises(InvalidInput, match="is not CIFAR-10: it holds the folders cat, dog, fish"):
        cifar10(source_folder, "train")
    with pytest.raises(InvalidInput, match="does not exist"):
        cifar10(tmp_path / "nowhere", "train")
    batches = official_batches / "cifar-10-batches-py"
    (batches / "data_batch_4").unlink()
    with pytest.raises(InvalidInput, match="data_batch_4 is missing"):
        cifar10(official_batches, "train")
    os.truncate(batches / "test_batch", 1000)
    with pytest.raises(RunFailure, match="test_batch is damaged"):
        cifar10(official_batches, "test")


def test_a_batch_cannot_run_code(official_batches, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (official_batches / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(RunFailure, match="which no CIFAR-10 batch needs"):
        cifar10(official_batches, "test")
    assert not (tmp_path / "owned").exists()


def test_digits_are_split_once_and_evenly_over_the_classes():
    train, held_out = digits(360, "train", 32, 0), digits(360, "held-out", 32, 0)
    keys, held_out_keys = ({entry.key for entry in source.entries} for source in (train, held_out))
    assert len(train.entries) == 1437
    assert len(keys | held_out_keys) == 1797
    counts = np.bincount([entry.label for entry in held_out.entries])
    assert counts.min() >= 35
    assert counts.max() <= 37
    assert held_out_keys != {entry.key for entry in digits(360, "held-out", 32, 1).entries}


def test_enlarged_digits_are_grey_rgb_and_still_the_digits():
    from sklearn.datasets import load_digits

    source = digits(10, "train", 32, 0)
    originals = load_digits().images
    for entry in source.entries[:50]:
        assert entry.content.shape == (32, 32, 3)
        assert entry.content.dtype == np.uint8
        assert (entry.content == entry.content[:, :, :1]).all()
        averaged = entry.content[:, :, 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) / 255 * 16
        assert np.abs(averaged - originals[int(entry.key[-4:])]).mean() < 1.0
    assert digits(10, "train", 8, 0).entries[0].content.shape == (8, 8, 3)


@pytest.mark.parametrize(("held_out", "size"), [(0, 32), (1797, 32), (-5, 32), (360, 4), (360, 100_000)])
def test_impossible_numbers_of_digits_are_refused(held_out, size):
    with pytest.raises(InvalidInput, match=r"choose between|hold out between"):
        digits(held_out, "train", size, 0)
