"""The k-NN vote is scikit-learn's weighted nearest neighbours on the unit sphere."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from rrcm_dist.evaluation import neighbours
from rrcm_dist.evaluation.neighbours import knn_predictions


def digits_as_tensors():
    data = load_digits()
    representations = torch.from_numpy(data.data).float() - 4  # so that some cosines are negative
    labels = torch.from_numpy(data.target).long()
    return representations[:1300], labels[:1300], representations[1300:], labels[1300:]


def scikit_learns(bank, labels, queries, neighbours, temperature):
    """On unit vectors the squared distance is 2 - 2 · cosine."""
    model = KNeighborsClassifier(neighbours, weights=lambda d: np.exp((1 - d**2 / 2) / temperature), algorithm="brute")
    unit = [(x / x.norm(dim=1, keepdim=True)).double().numpy() for x in (bank, queries)]
    return torch.from_numpy(model.fit(unit[0], labels.numpy()).predict(unit[1]))


@pytest.mark.parametrize("neighbours", [1, 5, 20, 200])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_predictions_are_scikit_learns(neighbours, temperature):
    bank, labels, queries, truth = digits_as_tensors()
    expected = scikit_learns(bank, labels, queries, neighbours, temperature)
    predicted = knn_predictions(queries, bank, labels, 10, neighbours, temperature)
    assert predicted.equal(expected)
    assert 0.8 < float((predicted == truth).float().mean()) < 1


def test_more_neighbours_than_the_bank_has_are_all_of_it():
    bank, labels, queries, _ = digits_as_tensors()
    few = knn_predictions(queries, bank[:7], labels[:7], 10, 20, 0.07)
    assert few.equal(scikit_learns(bank[:7], labels[:7], queries, 7, 0.07))


def test_queries_are_worked_through_in_pieces_without_a_difference(monkeypatch):
    bank, labels, queries, _ = digits_as_tensors()
    expected = knn_predictions(queries, bank, labels, 10, 20, 0.07)
    monkeypatch.setattr(neighbours, "QUERIES_AT_A_TIME", 64)
    assert knn_predictions(queries, bank, labels, 10, 20, 0.07).equal(expected)


def test_lengths_of_representations_do_not_matter():
    bank, labels, queries, _ = digits_as_tensors()
    expected = knn_predictions(queries, bank, labels, 10, 20, 0.07)
    lengths = torch.linspace(0.1, 10, len(bank))[:, None]
    assert knn_predictions(7 * queries, bank * lengths, labels, 10, 20, 0.07).equal(expected)
