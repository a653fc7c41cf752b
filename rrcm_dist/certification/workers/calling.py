"""Calling somebody's classifier: put in evaluation mode however it is made, its failures told in words."""

import torch
from torch import Tensor, nn

from rrcm_dist.errors import RRCMError, RunFailure


def set_evaluation_mode(classifier: nn.Module) -> None:
    """Put every part of `classifier` in evaluation mode.

    An exported program (`torch.export`) has one mode, fixed when it was exported, and refuses to be asked: it stays.
    """
    try:
        classifier.eval()
    except NotImplementedError:
        classifier.training = False
        for part in classifier.children():
            set_evaluation_mode(part)


def call_classifier(classifier: nn.Module, pixels: Tensor, source: str, on: str) -> Tensor:
    """The classifier's logits for `pixels`, float32 (N, C, H, W).

    `source` says where the classifier comes from and `on` what `pixels` are. Raises `RunFailure` with both where it
    raises anything, or returns something else than a tensor with N rows.
    """
    try:
        logits = classifier(pixels)
    except RRCMError:
        raise
    except Exception as error:
        first_line = (str(error).strip().splitlines() or ["no message"])[0]
        mend = "; lower device_batch" if isinstance(error, torch.OutOfMemoryError) else ""
        raise RunFailure(
            f"the classifier {source} failed on {on}, a batch of shape {tuple(pixels.shape)}: "
            f"{type(error).__name__}: {first_line}{mend}"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(pixels):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise RunFailure(
            f"the classifier {source} must return logits of shape ({len(pixels)}, classes), one row a draw; it "
            f"returned {found} for {on}"
        )
    return logits
