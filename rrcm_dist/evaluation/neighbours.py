"""Classes by weighted k-nearest neighbours of a representation (Wu et al. 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES_AT_A_TIME = 1024


def knn_predictions(
    queries: Tensor, bank: Tensor, bank_labels: Tensor, classes: int, neighbours: int, temperature: float
) -> Tensor:
    """Classes by the vote of the nearest neighbours, each weighing exp(cosine / τ).

    Args:
        queries: (Q, D) float. bank: (B, D) float. bank_labels: (B,) int64 in [0, classes).
        classes: number of classes.
        neighbours: k, at most B are used.
        temperature: τ > 0.

    Returns:
        (Q,) int64 predicted classes.
    """
    unit_bank = F.normalize(bank.float(), dim=1)
    predictions = []
    for chunk in F.normalize(queries.float(), dim=1).split(QUERIES_AT_A_TIME):
        similarity, nearest = (chunk @ unit_bank.T).topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(chunk), classes, device=chunk.device)
        votes.scatter_add_(1, bank_labels[nearest], (similarity / temperature).exp())
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)
