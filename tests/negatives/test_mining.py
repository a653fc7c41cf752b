"""Mining beside the published rule written out by hand, sample by sample; on one rank and on several."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ranks import run_ranks

from rrcm_dist.config.hard_negatives import HardNegativesConfig
from rrcm_dist.distributed.world import join_world
from rrcm_dist.negatives import ranking, sharded_rows
from rrcm_dist.negatives.mining import HardNegatives
from rrcm_dist.negatives.ranking import NONE
from rrcm_dist.negatives.rule import is_due, window

SAMPLES, WIDTH, LOOKS = 61, 6, 6
PUBLISHED = {"count": 3, "skip": 2, "windows": 4, "guard": {"on": False}}


def views_at(time: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of every sample, drifting with time."""
    generator = torch.Generator().manual_seed(0)
    base, drift, noise = (torch.randn(SAMPLES, WIDTH, generator=generator) for _ in range(3))
    return base + time * drift, base + time * drift + 0.3 * noise


def mined(config: HardNegativesConfig, looks: int = LOOKS, negatives: HardNegatives | None = None, since: int = 0):
    """Hard negatives after visits of all samples, each followed by a look."""
    negatives = negatives or HardNegatives(config, SAMPLES, WIDTH, 0, torch.device("cpu"))
    for time in range(since, looks):
        negatives.visit(torch.arange(SAMPLES), views_at(time))
        negatives.look(time)
    return negatives


class ByHand:
    """The published rule, float64, one sample at a time."""

    def __init__(self, **settings):
        self.config = HardNegativesConfig(**{**PUBLISHED, **settings})
        self.ids, self.then, self.number = {}, {}, {}
        self.rankings: dict[int, list[int]] = {}
        self.replacements = 0

    def look(self, views) -> None:
        a, b = (F.normalize(view.double(), dim=1) for view in views)
        bank, agreement = F.normalize(a + b, dim=1), (a * b).sum(dim=1)
        self.cosines = (bank @ bank.T).numpy()
        for sample in range(SAMPLES):
            self._look_at(sample, float(agreement[sample]))

    def _look_at(self, sample: int, agreement: float) -> None:
        config, number = self.config, self.number.get(sample, 0)
        if number:
            now = self._score(sample)
            if config.mode == "static" or not (now < self.then[sample] and abs(now) < 0.8):
                return
            if config.factor * now >= self.then[sample]:
                return
            if number == config.windows and config.past_last == "stay":
                return
            number = 0 if number == config.windows else number
        ranked = self._ranking(sample, agreement)
        number = 1 if config.window == "first" else number + 1
        first = (number - 1) * config.count + config.skipped(SAMPLES)
        given = ranked[first : first + config.count]
        if not given and config.past_last == "restart":
            number, first = 1, config.skipped(SAMPLES)
            given = ranked[first : first + config.count]
        if given:
            self.replacements += sample in self.ids
            self.ids[sample], self.number[sample] = given, number
            self.then[sample] = self._score(sample)

    def _score(self, sample: int) -> float:
        return float(np.mean([self.cosines[sample, other] for other in self.ids[sample]]))

    def _ranking(self, sample: int, agreement: float) -> list[int]:
        config = self.config
        if config.ranking == "kept" and sample in self.rankings:
            return self.rankings[sample]
        limit = np.inf
        if config.guard.on:
            limit = min(config.guard.ceiling or np.inf, (config.guard.of_agreement or np.inf) * agreement)
        others = [other for other in range(SAMPLES) if other != sample and self.cosines[sample, other] < limit]
        found = sorted(others, key=lambda other: -self.cosines[sample, other])
        self.rankings[sample] = found[: config.ranks(SAMPLES)]
        return self.rankings[sample]


SETTINGS = {
    "published": {},
    "static": {"mode": "static", "windows": 8},
    "kept ranking": {"ranking": "kept"},
    "first window": {"window": "first"},
    "stays at the end": {"windows": 2, "past_last": "stay"},
    "skips a share": {"guard": {"skip_share": 0.3}},
    "ceiling": {"guard": {"skip_share": 0.0, "ceiling": 0.1}},
    "share of agreement": {"guard": {"skip_share": 0.0, "of_agreement": 0.2}, "windows": 6},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_negatives_are_those_of_the_rule_written_out_by_hand(name, monkeypatch):
    monkeypatch.setattr(sharded_rows, "ROWS_AT_A_TIME", 16)
    monkeypatch.setattr(ranking, "ROWS_AT_A_TIME", 16)
    expected = ByHand(**SETTINGS[name])
    found = mined(expected.config, looks=0)
    for time in range(LOOKS):
        mined(expected.config, time + 1, found, since=time)
        expected.look(views_at(time))
        for sample, row in enumerate(found.assigned.own.tolist()):
            assert [other for other in row if other != NONE] == expected.ids.get(sample, []), (time, sample)
        then = torch.tensor([expected.then.get(sample, 0.0) for sample in range(SAMPLES)])
        torch.testing.assert_close(found.score.own[:, 0], then, atol=1e-6, rtol=1e-5)
    assert int(found.tally.replacements) == expected.replacements
    assert (expected.replacements > SAMPLES) == (name not in ("static", "stays at the end"))


def test_the_rule_replaces_what_has_become_easy_and_spares_what_is_suspiciously_alike():
    now, then = torch.tensor([0.5, 0.5, 0.85, -0.85, 0.5]), torch.tensor([0.58, 0.57, 1.0, 0.9, 0.575])
    assert is_due(now, then, 1.15, 0.8).tolist() == [True, False, False, False, False]


def test_negatives_below_zero_that_never_change_are_never_replaced():
    around = torch.linspace(0, 2 * torch.pi, SAMPLES + 1)[:-1]
    views = (torch.stack([around.cos(), around.sin()], dim=1),) * 2
    config = HardNegativesConfig(count=3, skip=SAMPLES // 2, windows=4, guard={"on": False})
    negatives = HardNegatives(config, SAMPLES, 2, 0, torch.device("cpu"))
    for step in range(3):
        negatives.visit(torch.arange(SAMPLES), views)
        negatives.look(step)
    assert (negatives.score.own < 0).all()
    assert int(negatives.tally.replacements) == 0


def test_the_ith_window_is_the_published_one():
    assert window(torch.tensor([1, 3]), count=4, skip=10).tolist() == [[10, 11, 12, 13], [18, 19, 20, 21]]


def test_samples_that_were_not_visited_are_nobodys_negatives_and_have_none():
    negatives = HardNegatives(HardNegativesConfig(**PUBLISHED), SAMPLES, WIDTH, 0, torch.device("cpu"))
    visited = torch.arange(0, SAMPLES, 2)
    negatives.visit(visited, tuple(view[visited] for view in views_at(0)))
    negatives.look(0)
    assert not set(negatives.assigned.own[visited].flatten().tolist()) - set(visited.tolist())
    assert (negatives.assigned.own[1::2] == NONE).all()


def test_a_pool_is_drawn_anew_for_each_look():
    negatives = HardNegatives(HardNegativesConfig(**PUBLISHED, pool=30), SAMPLES, WIDTH, 0, torch.device("cpu"))
    mined(None, 1, negatives)
    first = set(negatives.assigned.own.flatten().tolist())
    assert len(first) <= 30
    mined(None, LOOKS, negatives, since=1)
    assert set(negatives.assigned.own.flatten().tolist()) - first


def test_random_negatives_are_drawn_anew_at_every_step():
    config = HardNegativesConfig(mode="random", count=5)
    negatives, twin = (HardNegatives(config, SAMPLES, WIDTH, 0, torch.device("cpu")) for _ in range(2))
    batch = torch.arange(20)
    assert negatives.ids(batch, 3).equal(twin.ids(batch, 3))
    assert not negatives.ids(batch, 3).equal(negatives.ids(batch, 4))
    assert set(range(SAMPLES)) == set(torch.cat([negatives.ids(batch, step) for step in range(10)]).flatten().tolist())


def whole_state(config, looks):
    with join_world("cpu"):
        return mined(config, looks).state()


def state_of_a_second_life(config, looks, state):
    with join_world("cpu"):
        negatives = HardNegatives(config, SAMPLES, WIDTH, 0, torch.device("cpu"))
        negatives.load(state)
        return mined(config, looks, negatives, since=2).state()


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_several_ranks_find_what_one_finds_and_go_on_where_others_stopped(ranks, tmp_path: Path):
    config = HardNegativesConfig(**PUBLISHED, ranking="kept", precision="fp16" if ranks == 3 else "fp32")
    expected, halfway = mined(config).state(), mined(config, 2).state()
    found = run_ranks(whole_state, ranks, tmp_path / "whole", config, LOOKS)
    later = run_ranks(state_of_a_second_life, ranks, tmp_path / "later", config, LOOKS, halfway)
    for states in (found, later):
        for name, table in expected.items():
            assert len(states[0][name]) == len(table)
            if table.is_floating_point():
                torch.testing.assert_close(states[0][name], table, atol=1e-6, rtol=1e-6)
            else:
                assert states[0][name].equal(table), name
    assert len(found[1]["bank"]) == 0
