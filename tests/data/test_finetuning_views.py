"""Fine-tuning views: weak, strong, and timm's own RandAugment from a stream of its own."""

import numpy as np
import pytest
import torch
from PIL import Image

from rrcm_dist.config.parts import FinetuningViews
from rrcm_dist.data.decoding import EncodedImage
from rrcm_dist.data.finetuning_views import FILL, FinetuningView
from rrcm_dist.errors import InvalidInput
from rrcm_dist.random_streams import Purpose, seeded_library_state


@pytest.fixture
def image(photographs, encoded) -> EncodedImage:
    return EncodedImage(encoded(photographs[1].resize((150, 100)), "PNG"))


@pytest.fixture
def small(photographs, encoded) -> EncodedImage:
    return EncodedImage(encoded(photographs[1].resize((32, 32)), "PNG"))


def pixels(image: EncodedImage) -> torch.Tensor:
    return torch.from_numpy(image._pixels(1).copy()).permute(2, 0, 1)


def test_weak_changes_an_image_of_the_right_size_by_flips_alone_half_of_the_time(small: EncodedImage) -> None:
    view = FinetuningView(FinetuningViews(kind="weak"), 32)
    made = [view(small, 0, step, 0) for step in range(400)]
    flipped = [torch.equal(one, pixels(small).flip(2)) for one in made]
    assert all(is_flipped or torch.equal(one, pixels(small)) for one, is_flipped in zip(made, flipped, strict=True))
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", ["weak", "strong", "randaugment"])
def test_a_view_is_a_function_of_its_coordinates(image: EncodedImage, kind: str) -> None:
    first, second = (FinetuningView(FinetuningViews(kind=kind), 48) for _ in range(2))
    for step in range(20):
        assert torch.equal(first(image, 1, step, 3), second(image, 1, step, 3))
        assert first(image, 1, step, 3).shape == (3, 48, 48)
    different = {first(image, 1, step, 3).numpy().tobytes() for step in range(20)}
    assert len(different) == (2 if kind == "weak" else 20)


def test_randaugment_is_what_timms_create_transform_does(small: EncodedImage) -> None:
    views = FinetuningViews(kind="randaugment", flip=0.0, crop_scale=(1.0, 1.0))
    from timm.data import create_transform

    timms = create_transform(
        32, is_training=True, auto_augment=views.randaugment, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    ).transforms
    (augment,) = [step for step in timms if type(step).__name__ == "RandAugment"]
    view = FinetuningView(views, 32)
    strong = FinetuningView(FinetuningViews(kind="strong", flip=0.0, crop_scale=(1.0, 1.0)), 32)
    changed = 0
    for step in range(40):
        cropped = strong(small, 0, step)
        with seeded_library_state(Purpose.VIEWS, 0, step, "randaugment"):
            expected = np.array(augment(Image.fromarray(cropped.permute(1, 2, 0).numpy())))
        assert torch.equal(view(small, 0, step), torch.from_numpy(expected).permute(2, 0, 1))
        changed += not torch.equal(view(small, 0, step), cropped)
    assert changed > 20
    assert all(op.hparams["img_mean"] == FILL for op in augment.ops)


@pytest.mark.parametrize("description", ["rand-x9", "autocontrast", ""])
def test_an_unknown_randaugment_is_refused(description: str) -> None:
    with pytest.raises(InvalidInput, match=r"rand-m9-mstd0\.5-inc1"):
        FinetuningView(FinetuningViews(kind="randaugment", randaugment=description), 32)
