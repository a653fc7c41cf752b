"""A teacher is frozen, on the student's grid, in its own normalisation; one that cannot be is refused in words."""

import warnings

import pytest
import torch
from tiny import ENCODER, finetune_recipe
from warming import own_teacher, timm_weights

from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.config.representation_warmup import TeacherConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.checkpoint_files import OwnMetadata
from rrcm_dist.models.exporting_timm import export_timm
from rrcm_dist.models.rebuilding import network_of
from rrcm_dist.models.weights import write_weights
from rrcm_dist.warmup.teacher import load_teacher

STUDENT = EncoderConfig.model_validate(ENCODER)  # 4 × 4 patches


def images(count=3, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def loaded(path, model=None, student=STUDENT):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own, where it resamples positions
        return load_teacher(TeacherConfig(weights=str(path), model=model), student)


@pytest.mark.parametrize(("name", "size", "width"), [("test_vit", 64, 64), ("test_resnet", 128, 96)])
def test_a_timm_model_sees_images_of_the_size_that_gives_the_students_grid(name, size, width, tmp_path):
    teacher = loaded(timm_weights(tmp_path, name), name)
    assert teacher(images()).shape == (3, 16, width)
    assert (teacher.cost.input_size, teacher.cost.width) == (size, width)


def test_the_tokens_are_timms_own_of_its_own_normalisation(tmp_path):
    import timm

    file = timm_weights(tmp_path, "test_vit")
    teacher = loaded(file, "test_vit")
    student = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = checkpoint_filter_fn(torch.load(file), student)
    student.load_state_dict({name: value for name, value in state.items() if not name.startswith("head.")})
    data = timm.data.resolve_model_data_config(student)
    given = images(size=64)
    mean, deviation = (torch.tensor(data[what])[:, None, None] for what in ("mean", "std"))
    with torch.no_grad():
        expected = student.forward_features((given / 2 + 0.5 - mean) / deviation)[:, student.num_prefix_tokens :]
    torch.testing.assert_close(teacher(given), expected)


def test_a_run_of_ours_gives_the_tokens_before_its_last_block_at_t_min(tmp_path):
    file = own_teacher(tmp_path)
    teacher = loaded(file)
    from rrcm_dist.models.rebuilding import trained_network

    network, recipe = trained_network(file)
    seen = {}
    with torch.no_grad():
        network.encoder(images(), torch.full((3,), recipe.noise.t_min), seen=lambda block, x: seen.update({block: x}))
    torch.testing.assert_close(teacher(images()), seen[2][:, 2:])


def test_a_folder_that_rrcm_export_wrote_gives_the_same_network(tmp_path):
    file = own_teacher(tmp_path)
    export_timm(file, tmp_path / "timm", 0.0, encoder_only=True)
    assert loaded(tmp_path / "timm")(images()).shape == (3, 16, 48)


def test_a_teacher_never_learns(tmp_path):
    teacher = loaded(own_teacher(tmp_path))
    tokens = teacher(images().requires_grad_(True))
    assert not tokens.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher._network.parameters())
    assert not teacher._network.training


def test_tokens_of_an_image_do_not_depend_on_those_beside_it(tmp_path):
    teacher = loaded(timm_weights(tmp_path, "test_resnet"), "test_resnet")  # has batch norms
    torch.testing.assert_close(teacher(images())[:1], teacher(images()[:1]), rtol=1e-4, atol=1e-5)


def refused(*words):
    return pytest.raises(InvalidInput, match=".*".join(words))


def test_a_teacher_that_is_not_there_is_refused(tmp_path):
    with refused("teacher.weights", "nothing is downloaded"):
        loaded(tmp_path / "none.pth", "test_vit")


def test_a_file_that_does_not_say_its_network_is_refused(tmp_path):
    with refused("does not say which network", "teacher.model"):
        loaded(timm_weights(tmp_path, "test_vit"))


def test_a_model_that_timm_does_not_know_is_refused(tmp_path):
    with refused("cannot make the teacher vit_imaginary"):
        loaded(timm_weights(tmp_path, "test_vit"), "vit_imaginary")


@pytest.mark.parametrize(("there", "named"), [("test_resnet", "test_vit"), ("test_vit2", "test_vit")])
def test_weights_of_another_architecture_are_refused(there, named, tmp_path):
    with refused(f"is not of the teacher {named}"):
        loaded(timm_weights(tmp_path, there), named)


def test_another_grid_that_no_input_size_mends_is_refused_with_both_grids(tmp_path):
    with refused("8 × 8 tokens of 16 × 16 pixels", "4 × 4 patches"):
        loaded(own_teacher(tmp_path, patch=2))


def test_a_model_of_one_input_size_is_refused_with_the_grid(tmp_path):
    with refused("mixer_s32_224", "4 × 4 patches"):
        loaded(timm_weights(tmp_path, "mixer_s32_224"), "mixer_s32_224")


def test_a_fine_tuned_run_is_refused(tmp_path):
    recipe = finetune_recipe(tmp_path, tmp_path)
    file = tmp_path / "model.safetensors"
    write_weights(file, network_of(recipe).state_dict(), OwnMetadata("model", recipe).as_strings())
    with refused("fine-tuned network"):
        loaded(file)


def test_a_run_of_one_block_has_no_patch_tokens(tmp_path):
    with refused("one block"):
        loaded(own_teacher(tmp_path, depth=1))


def test_a_file_of_ours_needs_no_name(tmp_path):
    with refused("leave teacher.model null"):
        loaded(own_teacher(tmp_path), "test_vit")
