"""The probe is scikit-learn's logistic regression, and chooses its penalty without the images it is judged by."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rrcm_dist.evaluation import probe
from rrcm_dist.evaluation.probe import PENALTIES, fit_probe


def digits_as_tensors():
    data = load_digits()
    representations, labels = torch.from_numpy(data.data).float(), torch.from_numpy(data.target).long()
    return representations[:1300], labels[:1300], representations[1300:], labels[1300:]


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_it_is_scikit_learns_logistic_regression(monkeypatch, penalty):
    bank, labels, queries, truth = digits_as_tensors()
    monkeypatch.setattr(probe, "PENALTIES", (penalty,))
    classifier = fit_probe(bank, labels, 10, seed=0)
    scaler = StandardScaler().fit(bank)
    peer = LogisticRegression(C=1 / (penalty * len(labels)), max_iter=5000, tol=1e-6)
    peer.fit(scaler.transform(bank), labels)
    np.testing.assert_allclose(classifier.weight, peer.coef_, atol=2e-3)
    predicted = classifier.predictions(queries)
    agreement = (predicted.numpy() == peer.predict(scaler.transform(queries))).mean()
    assert agreement > 0.995
    assert 0.85 < float((predicted == truth).float().mean()) < 1


def test_classes_that_a_plane_separates_are_told_apart():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    centres = torch.tensor([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]])
    points = 100 + 7 * (centres[labels] + 0.5 * torch.randn(600, 3, generator=generator))
    classifier = fit_probe(points[:300], labels[:300], 3, seed=0)
    assert torch.equal(classifier.predictions(points[300:]), labels[300:])


def test_of_representations_that_say_nothing_the_strongest_penalty_is_chosen_or_nothing_learned():
    generator = torch.Generator().manual_seed(1)
    noise, labels = torch.randn(1000, 20, generator=generator), torch.randint(0, 4, (1000,), generator=generator)
    classifier = fit_probe(noise[:500], labels[:500], 4, seed=0)
    assert float((classifier.predictions(noise[500:]) == labels[500:]).float().mean()) < 0.35


def test_a_constant_number_changes_nothing_and_every_fit_is_told():
    bank, labels, queries, _ = digits_as_tensors()
    fits = []
    plain = fit_probe(bank, labels, 10, seed=0, fitted=lambda: fits.append(1))
    wider = fit_probe(torch.cat([bank, torch.full((len(bank), 1), 3.0)], dim=1), labels, 10, seed=0)
    more = torch.cat([queries, torch.full((len(queries), 1), 3.0)], dim=1)
    assert float((plain.predictions(queries) == wider.predictions(more)).float().mean()) > 0.995
    assert plain.penalty == wider.penalty
    assert len(fits) == len(PENALTIES) + 1
