"""The recipes hold the numbers of the paper, its released configurations and its authors' logs, written out again."""

import pytest

from rrcm_dist.config.load import load_recipe, recipe_names

PRETRAINING = [
    # recipe, size, patch, width, depth, heads, hidden, steps, batch, lr, decay, warm-up, sharpness, MoCo-v3's start
    ("imagenet/pretrain-s", 224, 16, 512, 6, 8, 2048, 600_000, 4096, 1e-4, 0.01, 10_000, 10, True),
    ("imagenet/pretrain-b", 224, 16, 768, 12, 12, 4096, 600_000, 4096, 2e-4, 0.03, 15_000, 10, True),
    ("cifar10/pretrain-b", 32, 4, 768, 12, 12, 2048, 300_000, 2048, 1e-4, 0.0, 10_000, 15, False),
]
FINETUNING = [
    # recipe, λ, epochs, lr, layer decay, augmentation, label smoothing, mixup, cutmix, flip, norm, warm-up
    ("imagenet/finetune-b-sigma0.25", 10, 150, 2e-4, 0.65, "randaugment", 0.1, 0.8, 1.0, 0.5, True, 5),
    ("imagenet/finetune-b-sigma0.5", 20, 50, 2e-4, 0.65, "strong", 0.0, 0.8, 1.0, 0.5, True, 5),
    ("imagenet/finetune-b-sigma1.0", 20, 150, 1e-4, 0.65, "weak", 0.0, 0.8, 1.0, 0.5, True, 5),
    ("cifar10/finetune-b-sigma0.25", 10, 100, 2e-4, 0.75, "weak", 0.0, 0.0, 0.0, 0.0, False, 10),
    ("cifar10/finetune-b-sigma0.5", 20, 100, 2e-4, 0.75, "weak", 0.0, 0.0, 0.0, 0.0, False, 10),
    ("cifar10/finetune-b-sigma1.0", 20, 100, 2e-4, 0.65, "weak", 0.0, 0.0, 0.0, 0.0, False, 10),
]


@pytest.mark.parametrize("row", PRETRAINING, ids=lambda row: row[0])
def test_pretraining_is_as_published(row):
    recipe = load_recipe(row[0], kind="pretrain")
    encoder, optimizer, training, target = recipe.encoder, recipe.optimizer, recipe.training, recipe.target
    shape = (encoder.image_size, encoder.patch, encoder.width, encoder.depth, encoder.heads, recipe.projector.hidden)
    assert shape == row[1:7]
    assert (training.steps, training.batch) == row[7:9]
    assert (optimizer.lr, optimizer.weight_decay, optimizer.warmup, target.sharpness) == row[9:13]
    assert encoder.freeze_patch_embedding == (encoder.initialization == "moco_v3") == row[13]
    assert (optimizer.clip, optimizer.betas, recipe.temperature) == (2.0, (0.9, 0.999), 0.2)
    assert (recipe.projector.output, encoder.mlp_ratio, training.precision) == (256, 4.0, "bf16")
    assert (target.schedule, target.start, target.end) == ("sigmoid", 0.99, 0.9999)


@pytest.mark.parametrize("name", [n for n in recipe_names() if "/pretrain" in n and "digits" not in n])
def test_the_views_and_the_noise_grid_are_as_published(name):
    recipe = load_recipe(name, kind="pretrain")
    views, noise = recipe.views, recipe.noise
    assert (views.crop_scale, views.flip, views.jitter, views.jitter_probability) == (
        (0.08, 1.0), 0.5, (0.4, 0.4, 0.2, 0.1), 0.8,
    )  # fmt: skip
    assert (views.greyscale_probability, views.blur_sigma) == (0.2, (0.1, 2.0))
    assert (views.blur_probability, views.solarize_probability) == ((1.0, 0.1), (0.0, 0.2))
    assert (noise.t_min, noise.t_max, noise.rho, noise.sigma_data) == (0.002, 80.0, 7.0, 0.5)
    assert (noise.levels_start, noise.levels_end) == (20, 80)


def test_deep_differs_from_b_in_depth_alone():
    deep, base = (load_recipe(f"imagenet/pretrain-{size}", kind="pretrain") for size in ("b-deep", "b"))
    as_base = {"name": base.name, "output": base.output, "encoder": base.encoder}
    assert deep.encoder.model_copy(update={"depth": 12}) == base.encoder
    assert deep.encoder.depth > base.encoder.depth
    assert deep.model_copy(update=as_base) == base


@pytest.mark.parametrize("row", FINETUNING, ids=lambda row: row[0])
def test_finetuning_is_as_published(row):
    recipe = load_recipe(row[0], kind="finetune")
    optimizer, mixing = recipe.optimizer, recipe.mixing
    assert row[0].endswith(f"sigma{recipe.sigma}")
    assert (recipe.consistency, recipe.training.epochs, optimizer.lr, optimizer.layer_decay) == row[1:5]
    assert (recipe.views.kind, mixing.label_smoothing, mixing.mixup, mixing.cutmix, recipe.views.flip) == row[5:10]
    assert (recipe.final_norm, optimizer.warmup) == row[10:12]
    assert (recipe.entropy, recipe.draws, recipe.training.batch, optimizer.weight_decay) == (0.5, 2, 1024, 0.0)
    assert (mixing.switch_probability, optimizer.betas, recipe.train_head) == (0.5, (0.9, 0.999), True)


def test_the_random_crops_of_finetuning_are_as_published():
    assert load_recipe("imagenet/finetune-b-sigma0.25").views.crop_scale == (0.08, 1.0)
    assert load_recipe("imagenet/finetune-b-sigma0.25").views.randaugment == "rand-m9-mstd0.5-inc1"
    assert load_recipe("imagenet/finetune-b-sigma0.5").views.crop_scale == (0.4, 1.0)


@pytest.mark.parametrize(("dataset", "every", "images"), [("imagenet", 100, 50_000), ("cifar10", 20, 10_000)])
def test_certification_is_as_published(dataset, every, images):
    recipe = load_recipe(f"{dataset}/certify-b", kind="certify")
    assert (recipe.n0, recipe.n, recipe.alpha) == (100, 100_000, 0.001)
    assert (recipe.images.every, recipe.images.count) == (every, images // every)
    assert [classifier.sigma for classifier in recipe.classifiers] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("dataset", ["imagenet", "cifar10"])
def test_the_recipes_of_a_dataset_fit_together(dataset):
    pretraining = load_recipe(f"{dataset}/pretrain-b", kind="pretrain")
    certification = load_recipe(f"{dataset}/certify-b", kind="certify")
    for classifier in certification.classifiers:
        finetuning = load_recipe(f"{dataset}/finetune-b-sigma{classifier.sigma}", kind="finetune")
        assert finetuning.start_from == pretraining.output
        assert finetuning.sigma == classifier.sigma
        assert finetuning.output == classifier.checkpoint
        assert finetuning.data.train == pretraining.data.train
        assert finetuning.data.held_out == certification.data
        shape = {"freeze_patch_embedding": False, "initialization": "torch"}
        assert finetuning.encoder.model_copy(update=shape) == pretraining.encoder.model_copy(update=shape)


@pytest.mark.parametrize(
    "name", [n for n in recipe_names() if "digits" not in n and ("pretrain" in n or "finetune" in n)]
)
def test_the_published_runs_can_be_shared_by_any_power_of_two_up_to_64_ranks(name):
    recipe = load_recipe(name)
    assert all(recipe.data.streams % ranks == 0 for ranks in (1, 2, 4, 8, 16, 32, 64))


def test_the_demo_can_be_shared_by_one_to_four_ranks():
    demo = load_recipe("demo", kind="demo")
    assert all(part.data.streams % ranks == 0 for part in (demo.pretrain, demo.finetune) for ranks in (1, 2, 3, 4))
