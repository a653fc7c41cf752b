"""The photometric transforms: torchvision's, operation by operation; the same for a sample in any batch."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rrcm_dist.config.parts import PretrainingViews
from rrcm_dist.data.photometric import (
    BLUR_RADIUS,
    COLUMNS,
    JITTERS,
    Column,
    _transform,
    apply_photometric,
    draw_photometric,
)
from rrcm_dist.torchvision_compat import allow_cpu_torch

allow_cpu_torch()
from torchvision import transforms as tv  # noqa: E402
from torchvision.transforms.v2 import functional as v2  # noqa: E402

TOLERANCE = 4e-6
"""On [-1, 1]: 2e-6 on the [0, 1] pixels that torchvision works on."""


@pytest.fixture(scope="module")
def images(photographs) -> Tensor:
    """uint8 (8, 3, 40, 56)."""
    cuttings = [photographs[n % 2].crop((60 * n, 40 * n, 60 * n + 56, 40 * n + 40)) for n in range(8)]
    return torch.stack([torch.from_numpy(np.array(cutting)).permute(2, 0, 1) for cutting in cuttings])


def nothing(rows: int) -> Tensor:
    parameters = torch.zeros(rows, COLUMNS)
    parameters[:, Column.ORDER : Column.ORDER + JITTERS] = -1
    return parameters


def drawn(rows: int, view: int, views: PretrainingViews | None = None, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    views = views or PretrainingViews()
    return torch.from_numpy(np.stack([draw_photometric(generator, views, view) for _ in range(rows)]))


def torchvisions(image: Tensor, parameters: Tensor) -> Tensor:
    """The same by torchvision's functional operations, one image in [0, 1] at a time."""
    row = parameters.tolist()
    adjust = (v2.adjust_brightness, v2.adjust_contrast, v2.adjust_saturation, v2.adjust_hue)
    for place in range(JITTERS):
        chosen = int(row[Column.ORDER + place])
        if chosen >= 0:
            image = adjust[chosen](image, row[chosen])
    if row[Column.GREYSCALE]:
        image = v2.rgb_to_grayscale(image, num_output_channels=3)
    if row[Column.BLUR_SIGMA]:
        image = v2.gaussian_blur(image, [2 * BLUR_RADIUS + 1] * 2, [row[Column.BLUR_SIGMA]] * 2)
    return v2.solarize(image, 128 / 255) if row[Column.SOLARIZE] else image


def same_as_torchvision(images: Tensor, parameters: Tensor, share: float = 1.0) -> None:
    ours = apply_photometric(images, parameters)
    theirs = torch.stack([torchvisions(i / 255, p) for i, p in zip(images, parameters, strict=True)]) * 2 - 1
    assert ours.dtype == torch.float32
    within = ((ours - theirs).abs() <= TOLERANCE).float().mean().item()
    assert within >= share


@pytest.mark.parametrize("column", [Column.BRIGHTNESS, Column.CONTRAST, Column.SATURATION, Column.HUE])
def test_each_jitter_is_torchvisions(images: Tensor, column: Column) -> None:
    parameters = nothing(8)
    low, high = (-0.5, 0.5) if column is Column.HUE else (0.0, 2.0)
    parameters[:, column] = torch.linspace(low, high, 8)
    parameters[:, Column.ORDER + 2] = column
    same_as_torchvision(images, parameters)


def test_greyscale_is_torchvisions(images: Tensor) -> None:
    parameters = nothing(8)
    parameters[::2, Column.GREYSCALE] = 1
    same_as_torchvision(images, parameters)


def test_blur_is_torchvisions(images: Tensor) -> None:
    parameters = nothing(8)
    parameters[:, Column.BLUR_SIGMA] = torch.tensor([0, 0.1, 0.3, 0.7, 1, 1.4, 1.9, 2])
    same_as_torchvision(images, parameters)


def test_solarize_is_torchvisions(images: Tensor) -> None:
    parameters = nothing(8)
    parameters[:, Column.SOLARIZE] = torch.tensor([0, 1] * 4)
    same_as_torchvision(images, parameters)


def test_without_operations_pixels_are_only_scaled(images: Tensor) -> None:
    torch.testing.assert_close(apply_photometric(images, nothing(8)), images / 127.5 - 1, atol=3e-7, rtol=0)


@pytest.mark.parametrize("view", [0, 1])
def test_drawn_views_are_torchvisions_operations_in_the_drawn_order(images: Tensor, view: int) -> None:
    # Rounding before the solarise threshold may turn a single pixel over: hence not quite all of them.
    same_as_torchvision(images.repeat(8, 1, 1, 1), drawn(64, view), share=1 - 1e-4)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_sample_is_the_same_to_the_bit_in_any_batch(images: Tensor, batch: int) -> None:
    images, parameters = images.repeat(3, 1, 1, 1), drawn(24, 1, seed=3)
    whole = apply_photometric(images, parameters)
    parts = [apply_photometric(images[n : n + batch], parameters[n : n + batch]) for n in range(0, 24, batch)]
    assert torch.equal(torch.cat(parts), whole)


def test_tiny_images_are_blurred_with_what_kernel_fits() -> None:
    parameters = nothing(1)
    parameters[:, Column.BLUR_SIGMA] = 2
    flat = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    torch.testing.assert_close(apply_photometric(flat, parameters), flat / 127.5 - 1, atol=1e-6, rtol=0)


def test_parameters_are_drawn_from_the_ranges_and_as_often_as_the_recipe_says() -> None:
    views = PretrainingViews()
    for view in (0, 1):
        rows = drawn(8000, view).numpy()
        jittered = rows[:, Column.ORDER] >= 0
        assert jittered.mean() == pytest.approx(0.8, abs=0.02)
        for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
            values = rows[jittered, column]
            assert low <= values.min() < low + 0.01
            assert high - 0.01 < values.max() <= high + 1e-6
            assert values.mean() == pytest.approx((low + high) / 2, abs=0.02)
        assert rows[:, Column.GREYSCALE].mean() == pytest.approx(0.2, abs=0.02)
        sigmas = rows[rows[:, Column.BLUR_SIGMA] > 0, Column.BLUR_SIGMA]
        assert len(sigmas) / len(rows) == pytest.approx(views.blur_probability[view], abs=0.02)
        assert sigmas.min() >= 0.1
        assert sigmas.max() <= 2
        assert sigmas.mean() == pytest.approx(1.05, abs=0.05)
        assert rows[:, Column.SOLARIZE].mean() == pytest.approx((0.0, 0.2)[view], abs=0.02)


def test_every_order_of_the_jitters_is_as_likely() -> None:
    orders = drawn(9600, 0).numpy()[:, Column.ORDER : Column.ORDER + JITTERS]
    found, counts = np.unique(orders[orders[:, 0] >= 0], axis=0, return_counts=True)
    assert len(found) == 24
    assert counts.min() > 0.75 * counts.mean()


@pytest.mark.parametrize("view", [0, 1])
def test_views_have_the_statistics_of_the_published_transforms(images: Tensor, view: int) -> None:
    torch.manual_seed(0)
    blur = tv.RandomApply([tv.GaussianBlur(13, (0.1, 2.0))], p=(1.0, 0.1)[view])
    theirs_transform = tv.Compose([
        tv.RandomApply([tv.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8), tv.RandomGrayscale(0.2), blur,
        tv.RandomSolarize(128 / 255, p=(0.0, 0.2)[view]),
    ])  # fmt: skip
    repeats = 250
    ours = apply_photometric(images.repeat(repeats, 1, 1, 1), drawn(8 * repeats, view, seed=1)).add(1).div(2)
    theirs = torch.stack([theirs_transform(image / 255) for image in images.repeat(repeats, 1, 1, 1)])
    for statistic in (_brightness, _contrast, _colourfulness, _sharpness):
        one, other = statistic(ours), statistic(theirs)
        noise = (one.var() / len(one) + other.var() / len(other)).sqrt()
        assert (one.mean() - other.mean()).abs() < 4 * noise, statistic.__name__


def _brightness(x: Tensor) -> Tensor:
    return x.mean(dim=(1, 2, 3))


def _contrast(x: Tensor) -> Tensor:
    return x.mean(1).flatten(1).std(1)


def _colourfulness(x: Tensor) -> Tensor:
    return (x.amax(1) - x.amin(1)).flatten(1).mean(1)


def _sharpness(x: Tensor) -> Tensor:
    return x.diff(dim=3).abs().mean(dim=(1, 2, 3))


def test_whole_batches_as_on_a_gpu_give_what_single_samples_give(images: Tensor) -> None:
    for view in (0, 1):
        parameters = drawn(64, view, seed=7)
        single, batched = (f(images.repeat(8, 1, 1, 1), parameters) for f in (apply_photometric, _transform))
        # Sums in another order may carry a pixel across the solarise threshold: hence not quite all of them.
        assert ((single - batched).abs() <= TOLERANCE).float().mean() >= 1 - 1e-4
