"""A whole paper on this machine: stage by stage, and only what is missing."""

import json
import sys
from functools import partial

import command
import pytest
from tiny import write_paper

from cluster.paper.plan import plan_paper
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.paper import paper_recipes
from rrcm_dist.errors import InvalidInput

STAGES = ["check-train", "check-held-out", "pretrain", "sigma_0.25", "sigma_0.5", "certificates", "report"]


@pytest.fixture
def cluster(monkeypatch, capfd):
    """`python -m cluster …`: (exit code, standard output, error)."""

    return partial(command.cluster, monkeypatch, capfd)


def test_the_stages_follow_from_the_recipe_and_read_what_the_one_before_writes(tmp_path, digits):
    paper = plan_paper(load_recipe(write_paper(tmp_path, digits), kind="paper"))
    assert [stage.name for stage in paper.stages] == STAGES
    waits = {stage.name: list(stage.after) for stage in paper.stages}
    assert waits == {
        "check-train": [],
        "check-held-out": [],
        "pretrain": STAGES[:2],
        "sigma_0.25": ["pretrain"],
        "sigma_0.5": ["pretrain"],
        "certificates": STAGES[3:5],
        "report": ["certificates"],
    }
    recipes = paper_recipes(paper.recipe)
    assert {tuned.start_from for tuned in recipes.finetune} == {recipes.pretrain.output}
    assert [(c.sigma, c.checkpoint) for c in recipes.certify.classifiers] == [
        (tuned.sigma, tuned.output) for tuned in recipes.finetune
    ]
    assert paper.missing() == list(paper.stages)


def test_a_demo_recipe_stands_for_the_recipe_of_every_stage():
    recipes = paper_recipes(load_recipe("digits-paper", kind="paper"))
    demo = load_recipe("demo", kind="demo")
    assert recipes.pretrain.training == demo.pretrain.training
    assert [tuned.sigma for tuned in recipes.finetune] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("overrides", "told"), [
    (["pretrain.recipe=cifar10/certify-b"], "pretrain: .* is a certify recipe, not a pretrain one"),
    (["pretrain.set={training.stepz: 5}"], r"pretrain: .*training.stepz: unknown key; did you mean training.steps"),
    (["finetune.1.set={sigma: 0.25}"], r"two stages at the same sigma \(of \[0.25, 0.25, 1.0\]\)"),
    (["certify.recipe=nothing"], "there is no recipe nothing"),
    (["finetune=[]"], "finetune: "),
])  # fmt: skip
def test_mistakes_are_told_with_their_stage(overrides, told):
    with pytest.raises(InvalidInput, match=f"(?s){told}"):
        paper_recipes(load_recipe("cifar10/paper-b", overrides, kind="paper"))


@pytest.mark.slow
def test_a_paper_goes_on_where_a_stage_failed_and_ends_with_a_report(tmp_path, digits, cluster, monkeypatch):
    options = ["--device", "cpu", "--threads", "1"]
    recipe = write_paper(tmp_path, digits, classes=7)
    code, out, err = cluster("submit", "paper", recipe, *options)
    assert code == 2
    assert "[5/7] sigma_0.5" in out
    assert "10 classes" in err
    code, out, _ = cluster("status", tmp_path / "paper")
    assert code == 0
    assert "4 of 7 stages finished" in out
    assert "report          not started: waits for sigma_0.5" in out

    code, out, err = cluster("submit", "paper", write_paper(tmp_path, digits), *options)
    assert code == 0, err
    assert [line for line in out.splitlines() if line.startswith("[")] == [
        f"[{place}/7] {name}" for place, name in enumerate(STAGES, start=1) if place >= 5
    ]
    rows = json.loads((tmp_path / "paper" / "report" / "report.json").read_text())["rows"]
    assert [row["sigma"] for row in rows] == [0.25, 0.5]
    assert "7 of 7 stages finished" in cluster("status", tmp_path / "paper")[1]
    code, _, err = cluster("resubmit", tmp_path / "paper")
    assert code == 2
    assert "is finished: nothing is left to do" in err

    with monkeypatch.context() as another_name:
        another_name.setattr(sys, "executable", f"{sys.executable}-by-another-name")
        assert plan_paper(load_recipe(recipe, kind="paper")).missing() == []
    more = plan_paper(load_recipe(recipe, ["certify.set={images.count: 5}"], kind="paper"))
    assert [stage.name for stage in more.missing()] == ["certificates", "report"]
