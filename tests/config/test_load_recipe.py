import pytest

from rrcm_dist.config.load import dump_recipe, find_recipe, load_recipe, recipe_names
from rrcm_dist.errors import InvalidInput

SMALL = """
kind: pretrain
name: small
output: runs/small
encoder: {image_size: 32, patch: 8, width: 64, depth: 2, heads: 4}
projector: {hidden: 64}
data: {train: shards, streams: 4}
optimizer: {lr: 2e-4, weight_decay: 1e-3}
training: {steps: 10, batch: 16}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refusal(*args, **kwargs):
    with pytest.raises(InvalidInput) as caught:
        load_recipe(*args, **kwargs)
    return str(caught.value)


def test_numbers_without_a_point_are_numbers(small):
    optimizer = load_recipe(small).optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (2e-4, 1e-3)


def test_off_is_a_word_and_not_false(small):
    assert load_recipe(small, ["tracking.wandb=off"]).tracking.wandb == "off"


def test_overrides_reach_nested_keys_sections_and_lists(small, tmp_path):
    recipe = load_recipe(small, ["training.batch=32", "views.crop_scale=[0.2, 1]", "target.start=5e-1", "knn.every=7"])
    assert recipe.training.batch == 32
    assert recipe.views.crop_scale == (0.2, 1.0)
    assert recipe.target.start == 0.5
    assert recipe.knn.every == 7
    certify = tmp_path / "certify.yaml"
    certify.write_text(
        "{kind: certify, name: c, output: o, data: d, image_size: 8, classifiers: [{sigma: 1, checkpoint: a}]}"
    )
    assert load_recipe(certify, ["classifiers.0.checkpoint=b"]).classifiers[0].checkpoint == "b"
    assert "must be 0 to 0" in refusal(certify, ["classifiers.1.checkpoint=b"])


def test_the_last_override_of_a_key_wins(small):
    assert load_recipe(small, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimiser.lr=1", "optimizer.lr"),
        ("lr=1", "optimizer.lr"),
        ("training.bach=1", "training.batch"),
        ("encoder.dept=1", "encoder.depth"),
        ("knn.evry=3", "knn.every"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_valid_one(small, override, told):
    message = refusal(small, [override])
    assert "unknown key" in message
    assert f"did you mean {told}" in message


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("encoder.patch=5", "encoder: patch 5 does not divide image_size 32"),
        ("encoder.heads=5", "encoder: heads 5 does not divide width 64"),
        ("data.streams=3", "data.streams 3 does not divide training.batch 16"),
        ("optimizer.lr=0", "optimizer.lr: must be greater than 0 (given 0)"),
        ("optimizer.lr=.inf", "optimizer.lr: must be a finite number"),
        ("optimizer.lr=.nan", "optimizer.lr: must be a finite number"),
        ("training.batch=true", "training.batch: must be a valid integer (given true)"),
        ("training.batch='16'", "training.batch: must be a valid integer"),
        ("training.epochs=3", "training: give either steps or epochs"),
        ("training.zero_stage=4", "training.zero_stage: must be 0, 1, 2 or 3 (given 4)"),
        ("views.crop_scale=[1, 0.5]", "views.crop_scale: a range goes from the smaller to the larger"),
        ("output=null", "output: must be text (given null)"),
        ("training.batch", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("training..batch=3", "not of the form key=value"),
        ("name.first=3", "nothing can be below it"),
        ("views.blur_probability.0=1", "give the whole list, views.blur_probability=[…]"),
        ("name=[1", "not YAML"),
    ],
)
def test_an_impossible_value_is_told_with_its_place_and_what_is_allowed(small, override, told):
    assert told in refusal(small, [override])


def test_every_problem_is_told_at_once(small):
    message = refusal(small, ["encoder.depth=0", "training.steps=-1", "nonsense=1", "optimizer.lr=fast"])
    assert "4 problems" in message
    for path in ("encoder.depth", "training.steps", "nonsense", "optimizer.lr"):
        assert f"  {path}: " in message


def test_a_missing_key_is_named(small):
    small.write_text(SMALL.replace("name: small", ""))
    assert "name: missing" in refusal(small)


def test_a_key_given_twice_is_refused(small):
    small.write_text(SMALL + "seed: 1\nseed: 2\n")
    assert "given twice: seed" in refusal(small)


def test_the_wrong_kind_names_the_command_to_use(small):
    message = refusal(small, kind="certify")
    assert "is a pretrain recipe" in message
    assert f"rrcm pretrain {small}" in message


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "kind: dance", "name: x", "a: [", "\x00"])
def test_a_file_that_is_no_recipe_is_refused(small, text):
    small.write_text(text)
    assert str(small) in refusal(small)


def test_a_recipe_that_is_not_there_names_the_nearest_ones(tmp_path):
    assert "imagenet/pretrain-b" in refusal("imagenet/pretrain_b")
    assert "imagenet/pretrain-b" in refusal("configs/imagenet/pretrianb.yaml")
    assert "is a folder without a recipe.yaml" in refusal(tmp_path)


def test_a_run_folder_stands_for_the_recipe_in_it(small):
    small.rename(small.with_name("recipe.yaml"))
    assert load_recipe(small.parent).name == "small"


def test_a_bare_name_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("imagenet/pretrain-b") == find_recipe("imagenet/pretrain-b.yaml")
    assert load_recipe("imagenet/pretrain-b", kind="pretrain").encoder.depth == 12


@pytest.mark.parametrize("name", recipe_names())
def test_a_dumped_recipe_loads_back_to_an_equal_one(name, tmp_path):
    recipe = load_recipe(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe


@pytest.mark.parametrize(
    "text", ["2e-4", "off", "010", "null", "1_000", "true", "a: b", "# x", "", "é σ", "1.5", "~", "12:30"]
)
def test_any_text_survives_the_dump(small, tmp_path, text):
    recipe = load_recipe(small).model_copy(update={"name": text})
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy) == recipe
