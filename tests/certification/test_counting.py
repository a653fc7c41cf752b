"""Counting: the same counts however draws are cut, noise of its own for each block, and checks of the classifier."""

import numpy as np
import pytest
import torch
from certification_models import NearTies, small
from torch import nn

from rrcm_dist.certification.blocks import Block, Stage
from rrcm_dist.certification.workers.counting import BlockCounter, BlockNoise, one_thread
from rrcm_dist.errors import InvalidInput, RunFailure

CPU = torch.device("cpu")
IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8))


def block(number=0, draws=500, stage=Stage.ESTIMATION, sigma=0.5, key="img", image=4):
    return Block(image, key, sigma, stage, number, draws)


def count(classifier, classes, device_batch, a_block=None, precision="fp32"):
    return BlockCounter(classifier, 0, classes, CPU, device_batch, precision).count(IMAGE, a_block or block()).counts


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def plain_counts(classifier, device_batch):
    """Counts by plain argmax of every batch."""
    noise = BlockNoise(CPU, 0, block())
    noisy = noise.draw(500, IMAGE.shape) * 0.5 + IMAGE.float() / 255
    with torch.no_grad():
        decided = torch.cat([classifier(part).argmax(1) for part in noisy.split(device_batch)])
    return torch.bincount(decided, minlength=6).tolist()


def test_counts_depend_neither_on_the_device_batch_nor_on_threads_even_where_every_draw_is_nearly_tied(threads):
    classifier = NearTies()
    plain, ours = set(), set()
    for number_of_threads in (1, 2):
        threads(number_of_threads)
        for device_batch in (5, 64, 500):
            plain.add(tuple(plain_counts(classifier, device_batch)))
            ours.add(tuple(count(classifier, 6, device_batch).tolist()))
    assert len(plain) > 1, "plain argmax must depend on the batch here, or this test shows nothing"
    assert len(ours) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_counts_of_a_convolutional_network_do_not_depend_on_the_device_batch(precision, threads):
    counts = set()
    for number_of_threads, device_batch in [(1, 500), (1, 64), (2, 500), (2, 33), (1, 1)]:
        threads(number_of_threads)
        counts.add(tuple(count(small(), 10, device_batch, precision=precision).tolist()))
    assert len(counts) == 1


def test_the_number_of_threads_is_put_back(threads):
    threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2


def test_counts_are_those_of_the_plain_definition():
    classifier = small().eval()
    noisy = BlockNoise(CPU, 0, block()).draw(500, IMAGE.shape) * 0.5 + IMAGE.float() / 255
    with torch.no_grad():
        expected = torch.bincount(classifier(noisy).argmax(1), minlength=10)
    result = BlockCounter(classifier, 0, 10, CPU, 100, "fp32").count(IMAGE, block())
    assert result.counts.tolist() == expected.tolist()
    assert result.counts.sum() == 500
    assert len(set(result.counts.tolist())) > 2
    assert result.seconds > 0
    assert result.host


def test_noise_is_a_function_of_seed_image_sigma_stage_and_block():
    base = block()
    first = BlockNoise(CPU, 0, base).draw(200, IMAGE.shape)
    others = [
        (1, base), (0, block(number=1)), (0, block(stage=Stage.SELECTION)), (0, block(sigma=0.25)), 
        (0, block(key="other")),
    ]  # fmt: skip
    drawn = [BlockNoise(CPU, seed, named).draw(200, IMAGE.shape) for seed, named in others]
    for position, one in enumerate(drawn):
        for other in [first, *drawn[:position]]:
            correlation = float((one * other).mean())
            assert abs(correlation) < 5 / one.numel() ** 0.5
            assert not (one == other).any(dim=0).all()
    assert (BlockNoise(CPU, 0, block(image=99, draws=7)).draw(200, IMAGE.shape) == first).all()


def test_noise_does_not_depend_on_how_it_is_cut():
    whole = BlockNoise(CPU, 0, block()).draw(150, IMAGE.shape)
    noise = BlockNoise(CPU, 0, block())
    assert (torch.cat([noise.draw(cut, IMAGE.shape) for cut in (1, 49, 60, 40)]) == whole).all()


def test_noise_is_standard_normal_and_float32():
    noise = BlockNoise(CPU, 0, block()).draw(5000, IMAGE.shape)
    assert noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.005
    assert abs(float(noise.std()) - 1) < 0.005


class Recorder(nn.Module):
    """Remembers what it is given; its answer is always class 0."""

    def __init__(self):
        super().__init__()
        self.given, self.modes = [], []

    def forward(self, x):
        self.given.append(x.clone())
        self.modes.append(self.training)
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)


def test_a_network_in_bf16_is_given_float32_noise_on_pixels_between_0_and_1():
    recorder = Recorder()
    BlockCounter(recorder, 0, 2, CPU, 100, "bf16").count(IMAGE, block(draws=100))
    expected = BlockNoise(CPU, 0, block()).draw(100, IMAGE.shape) * 0.5 + IMAGE.float() / 255
    assert recorder.given[0].dtype == torch.float32
    assert torch.equal(recorder.given[0], expected)


def test_evaluation_mode_is_enforced_at_every_block():
    recorder = Recorder().train()
    counter = BlockCounter(recorder, 0, 2, CPU, 100, "fp32")
    counter.count(IMAGE, block(draws=100))
    recorder.train()
    counter.count(IMAGE, block(draws=100))
    assert not any(recorder.modes)


class BatchStatistics(nn.Module):
    def forward(self, x):
        x = x.flatten(1)[:, :4]
        return (x - x.mean(0)) / (x.std(0) + 1e-6) if len(x) > 1 else x


class Chance(nn.Module):
    def forward(self, x):
        return torch.rand(len(x), 4)


@pytest.mark.parametrize("classifier", [BatchStatistics(), Chance()])
def test_a_classifier_whose_answers_depend_on_the_batch_or_on_chance_is_refused(classifier):
    with pytest.raises(RunFailure, match="depends on the others in its batch, or on chance"):
        count(classifier, 4, 100)


class Answer(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize(("make", "message"), [
    (lambda x: torch.full((len(x), 4), float("nan")), r"not finite.*image 4 \(img\) at sigma 0\.5, estimation block 0"),
    (lambda x: torch.tensor([[0.0, 1.0, 2.0, float("inf")]]).expand(len(x), 4), "not finite"),
    (lambda x: torch.zeros(len(x), 5), r"shape \(100, 4\).*returned \(100, 5\) for image 4"),
    (lambda x: torch.zeros(len(x)), r"returned \(100,\)"),
    (lambda x: (torch.zeros(len(x), 4),), "returned tuple"),
])  # fmt: skip
def test_wrong_logits_are_refused_naming_the_image(make, message):
    with pytest.raises(RunFailure, match=message):
        count(Answer(make), 4, 100)


def test_impossible_settings_are_refused():
    with pytest.raises(InvalidInput, match="device_batch"):
        count(small(), 10, 0)
    with pytest.raises(InvalidInput, match="sigma"):
        count(small(), 10, 10, block(sigma=0.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_on_cuda_does_not_depend_on_how_it_is_cut():
    cuda = torch.device("cuda")
    whole = BlockNoise(cuda, 0, block()).draw(150, IMAGE.shape)
    noise = BlockNoise(cuda, 0, block())
    assert (torch.cat([noise.draw(cut, IMAGE.shape) for cut in (1, 49, 60, 40)]) == whole).all()


def test_an_exported_program_that_has_no_evaluation_mode_is_counted_as_the_network_it_is_of():
    network, batch = small().eval(), torch.rand(4, 3, 8, 8)
    exported = torch.export.export(network, (batch,), dynamic_shapes=({0: torch.export.Dim("draws")},)).module()
    with pytest.raises(NotImplementedError):
        exported.eval()
    assert (count(exported, 10, 50) == count(network, 10, 50)).all()
    assert (count(nn.Sequential(exported, nn.Dropout()), 10, 50) == count(network, 10, 50)).all()


def test_a_classifier_that_fails_is_told_in_one_line_naming_it_and_the_image():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("no such layer\nand more")

    counter = BlockCounter(Fails(), 0, 10, CPU, 100, "fp32", "my_nets:fails")
    with pytest.raises(RunFailure, match=r"my_nets:fails failed on image 4 \(img\).*\(100, 3, 8, 8\): KeyError: .*"):
        counter.count(IMAGE, block())
    with pytest.raises(RunFailure, match=r"failed on image 4 .*RuntimeError: mat1 and mat2"):
        count(nn.Sequential(nn.Flatten(), nn.Linear(5, 10)), 10, 100)
