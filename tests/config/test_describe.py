import pytest

from rrcm_dist.config.describe import describe
from rrcm_dist.config.load import dump_recipe, load_recipe, recipe_names
from rrcm_dist.errors import InvalidInput


def row(page, what):
    """The line of the page that begins with `what`."""
    return next(line for line in page.splitlines() if line.strip().startswith(f"{what}  "))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_described_with_all_its_keys(name):
    recipe = load_recipe(name)
    assert describe(recipe).startswith(dump_recipe(recipe))


def test_pretraining_tells_parameters_work_memory_rate_and_hours():
    page = describe(load_recipe("imagenet/pretrain-b"), 32, "A800")
    assert "85.8M" in row(page, "encoder")
    assert "32.9 GFLOP   per image; 35.3 GFLOP" in row(page, "forward pass")
    assert "1.62 PFLOP" in row(page, "step")
    assert "9.7e+20 FLOP" in row(page, "run")
    assert "fits in 80 GB" in row(page, "in all")
    assert "images/s" in row(page, "loaders must deliver")
    assert "40% of 312 TFLOP/s" in page
    assert "estimate" in page


def test_twice_the_gpus_take_half_the_time_and_need_twice_the_images():
    def rate(gpus):
        page = describe(load_recipe("imagenet/pretrain-b", ["training.micro_batch=null"]), gpus)
        return float(row(page, "loaders must deliver").split()[3].replace(",", ""))

    assert rate(32) == pytest.approx(2 * rate(16), rel=1e-3)


def test_what_does_not_fit_or_cannot_be_shared_is_said():
    page = describe(load_recipe("imagenet/pretrain-b", ["training.micro_batch=null"]), 3, "4090")
    assert "DOES NOT FIT in 24 GB" in page
    assert "256 streams cannot be shared by 3 ranks" in page


def test_pretraining_tells_what_a_rank_sends_and_what_bounds_the_step():
    page = describe(load_recipe("imagenet/pretrain-b"), 32, "A800")
    assert "20.3 MB" in row(page, "keys of the loss")  # 31 × 128 × (2 × 256 + 768) float32
    assert "1.26 GB" in row(page, "sent in all")
    assert "8 × 25 GB/s a node" in row(page, "network")
    assert "arithmetic" in row(page, "longest")


def test_a_gpu_alone_sends_nothing():
    assert "0 B" in row(describe(load_recipe("imagenet/pretrain-b"), 1), "sent in all")


def test_a_gpu_without_bf16_is_told():
    assert "it has no bf16" in describe(load_recipe("imagenet/pretrain-b"), 8, "v100")


def test_known_sample_counts_replace_assumed_ones():
    recipe = load_recipe("cifar10/finetune-b-sigma0.5")
    assert "assuming CIFAR-10" in describe(recipe)
    page = describe(recipe, samples=10_240)
    assert "assuming CIFAR-10" not in page
    assert "1,000" in row(page, "steps")


def test_certification_tells_its_forward_passes_and_reads_the_encoder_beside_the_checkpoint(tmp_path):
    page = describe(load_recipe("imagenet/certify-b"))
    assert "150,150,000" in row(page, "forward passes")
    assert "assuming rRCM-B" in page
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(dump_recipe(load_recipe("cifar10/finetune-b-sigma0.5", ["encoder.depth=2"])))
    page = describe(load_recipe("cifar10/certify-b", [f"classifiers=[{{sigma: 0.5, checkpoint: {run}}}]"]))
    assert str(run) in page
    assert "assuming rRCM-B" not in page


def test_another_classifier_s_cost_is_not_invented():
    page = describe(load_recipe("cifar10/certify-b", ["classifiers=[{sigma: 0.5, function: 'package.module:build'}]"]))
    assert "cost is not known" in page


@pytest.mark.parametrize(("gpus", "gpu", "told"), [(0, "A800", "1 GPU or more"), (8, "A8000", "A800")])
def test_an_impossible_machine_is_refused(gpus, gpu, told):
    with pytest.raises(InvalidInput, match=told):
        describe(load_recipe("demo"), gpus, gpu)
