"""Mixup and CutMix: timm's arithmetic, drawn per canonical stream."""

import numpy as np
import pytest
import torch

from rrcm_dist.config.parts import MixingConfig
from rrcm_dist.data.mixing import mix
from rrcm_dist.torchvision_compat import allow_cpu_torch

CLASSES = 7
BOTH = MixingConfig(mixup=0.8, cutmix=1.0, label_smoothing=0.1)


def batch(rows: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(rows, 3, 16, 12, generator=generator)
    return images, torch.randint(0, CLASSES, (rows,), generator=generator)


@pytest.mark.parametrize("ranks", [2, 3, 6])
def test_ranks_mix_as_one_process_does(ranks: int) -> None:
    images, labels = batch()
    whole = mix(images, labels, CLASSES, BOTH, seed=1, step=5, first_stream=0, streams_here=6)
    streams, rows = 6 // ranks, 24 // ranks
    for rank in range(ranks):
        part = slice(rank * rows, (rank + 1) * rows)
        share = mix(images[part], labels[part], CLASSES, BOTH, 1, 5, rank * streams, streams)
        torch.testing.assert_close(share[0], whole[0][part], rtol=0, atol=0)
        torch.testing.assert_close(share[1], whole[1][part], rtol=0, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_stream_is_mixed_as_timm_would_with_the_same_draw(kind: str, smoothing: float) -> None:
    allow_cpu_torch()
    from timm.data.mixup import mixup_target

    images, labels = batch(8)
    config = MixingConfig(**{kind: 1.0}, label_smoothing=smoothing)
    for step in range(20):
        mixed, targets = mix(images, labels, CLASSES, config, 0, step, 0, 1)
        # Recover λ from the targets of a pair with different labels, then let timm make the targets.
        pair = next(i for i in range(4) if labels[i] != labels[7 - i])
        one, other = targets[pair, labels[pair]].item(), targets[pair, labels[7 - pair]].item()
        lam = (one - smoothing / CLASSES) / (one + other - 2 * smoothing / CLASSES)
        expected = mixup_target(labels, CLASSES, lam, smoothing)
        torch.testing.assert_close(targets, expected, atol=1e-6, rtol=0)
        if kind == "mixup":
            torch.testing.assert_close(mixed, images * lam + images.flip(0) * (1 - lam), atol=1e-5, rtol=0)
        else:
            own = (mixed == images).all(dim=(0, 1))
            assert own.float().mean().item() == pytest.approx(lam, abs=1e-5)
            torch.testing.assert_close(mixed[:, :, ~own], images.flip(0)[:, :, ~own], atol=0, rtol=0)


def test_lambdas_are_distributed_as_timm_draws_them() -> None:
    allow_cpu_torch()
    from timm.data import Mixup

    images, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    ours = [mix(images, labels, 2, BOTH, 0, step, 0, 1)[1][0].max().item() for step in range(3000)]
    timms = Mixup(0.8, 1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=2)
    np.random.seed(0)
    theirs = [max(lam, 1 - lam) * 0.9 + 0.05 for lam in (_timm_lambda(timms) for _ in range(3000))]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.012)
    assert np.std(ours) == pytest.approx(np.std(theirs), abs=0.012)


def _timm_lambda(timms) -> float:
    from timm.data.mixup import cutmix_bbox_and_lam

    lam, use_cutmix = timms._params_per_batch()
    return float(cutmix_bbox_and_lam((2, 3, 16, 16), lam)[1] if use_cutmix else lam)


def test_steps_streams_and_seeds_draw_anew() -> None:
    images, labels = batch(4)
    first = mix(images, labels, CLASSES, BOTH, 0, 0, 0, 1)[0]
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(first, mix(images, labels, CLASSES, BOTH, *other, 1)[0])


def test_off_leaves_images_alone_and_smooths_labels() -> None:
    images, labels = batch()
    mixed, targets = mix(images, labels, CLASSES, MixingConfig(label_smoothing=0.1), 0, 0, 0, 6)
    assert mixed is images
    torch.testing.assert_close(targets.sum(1), torch.ones(24))
    torch.testing.assert_close(targets[torch.arange(24), labels], torch.full((24,), 0.9 + 0.1 / CLASSES))
