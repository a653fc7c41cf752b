"""Where a base classifier comes from: one of our checkpoints, or any function that returns a torch module."""

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.certification.workers.calling import call_classifier, set_evaluation_mode
from rrcm_dist.certification.workers.counting import one_thread
from rrcm_dist.config.schema import ClassifierConfig, FinetuneConfig
from rrcm_dist.errors import InvalidInput, RRCMError, RunFailure

PROBE_IMAGES = 2
PROBE_CLASSES = 16
PROBE_STEPS = 100
"""Logits of so many images and first classes stand for weights that are out of sight, to 1/100 of the row's largest.

So coarse and so few, so that rounding on another machine almost never moves one over a step.
"""


def build_classifier(config: ClassifierConfig, attention: str, device: torch.device, precision: str) -> nn.Module:
    """The classifier of `config`: float32 (N, C, H, W), [0, 1] pixels plus noise, to logits (N, classes).

    `attention` and `precision` (fp32 or bf16) are for one of ours; any other is called within autocast.
    """
    if config.function is not None:
        return call_function(config.function, config.sigma)
    from rrcm_dist.models.classifier import load_classifier  # only where one of ours is certified

    assert config.checkpoint is not None, "the recipe's type gives one of the two"
    return load_classifier(config.checkpoint, config.sigma, attention, device, precision)


def source_of(config: ClassifierConfig) -> str:
    """Where the classifier comes from, for people."""
    return config.function or str(config.checkpoint)


def sources_of(configs: Iterable[ClassifierConfig]) -> dict[float, str]:
    """`source_of` each, by σ."""
    return {config.sigma: source_of(config) for config in configs}


def call_function(name: str, sigma: float) -> nn.Module:
    """What `package.module:function` returns; it is given `sigma=σ` if it has a parameter of that name.

    The current directory can be imported from. Raises `InvalidInput` where there is no such module or function, or
    where it returns something else than a torch.nn.Module, and `RunFailure` where it fails.
    """
    function = _find(name)
    try:
        takes_sigma = "sigma" in inspect.signature(function).parameters
        module = function(sigma=sigma) if takes_sigma else function()
    except RRCMError:
        raise
    except Exception as error:
        raise RunFailure(f"{name} failed: {type(error).__name__}: {error}{_place(error)}") from error
    if not isinstance(module, nn.Module):
        raise InvalidInput(f"{name} returned {type(module).__name__}; it must return a torch.nn.Module")
    return module


def check_checkpoint(config: ClassifierConfig, image_size: int, classes: int) -> None:
    """Raise `InvalidInput` where `config` names a checkpoint of ours that is for other images or classes."""
    if config.checkpoint is None:
        return
    from rrcm_dist.models.checkpoint_files import require_own, weights_file

    recipe = require_own(weights_file(config.checkpoint, "model")).recipe
    trained = recipe.encoder.image_size
    if trained != image_size:
        raise InvalidInput(
            f"checkpoint {config.checkpoint} was trained at image_size {trained}, not {image_size}: certify with "
            f"image_size={trained}"
        )
    if isinstance(recipe, FinetuneConfig) and recipe.classes != classes:
        raise InvalidInput(
            f"checkpoint {config.checkpoint} tells {recipe.classes} classes apart, and the dataset has {classes}: "
            "certify on the dataset that it was trained for"
        )


def check_classes(classifier: nn.Module, source: str, image_size: int, classes: int, device: torch.device) -> None:
    """Raise `InvalidInput` where `classifier` answers an image with another number of logits than there are classes.

    Where it cannot be called here, nothing is said: workers may be able to.
    """
    set_evaluation_mode(classifier)
    try:
        with torch.no_grad():
            logits = call_classifier(classifier, torch.zeros(1, 3, image_size, image_size, device=device), source, "it")
    except RunFailure:
        return
    if logits.shape[1] != classes:
        raise InvalidInput(
            f"the classifier {source} tells {logits.shape[1]} classes apart, and the dataset has {classes}: certify on "
            "the dataset that it was trained for"
        )


def identity_hash(classifier: nn.Module, source: str, image_size: int, device: torch.device) -> str:
    """What tells one classifier from another: `weights_hash`, where its state dict has a tensor.

    Where it has none, the weights are out of sight (held in a closure, say), and two such classifiers would look the
    same: the hash is then over `source` and the logits of two fixed images of `image_size` as well.
    Raises `RunFailure` where the classifier fails on these.
    """
    weights = weights_hash(classifier)
    if any(isinstance(value, Tensor) for value in classifier.state_dict().values()):
        return weights
    digest = hashlib.sha256(f"{weights}\x00{source}\x00".encode())
    digest.update(_probed_logits(classifier, source, image_size, device).numpy().data)
    return digest.hexdigest()


def _probed_logits(classifier: nn.Module, source: str, image_size: int, device: torch.device) -> Tensor:
    """Logits of fixed images in whole steps of a hundredth of their row's largest, int32 (2, at most 16)."""
    numbers = torch.arange(PROBE_IMAGES * 3 * image_size**2, dtype=torch.float64)
    golden = (numbers * 0.6180339887498949) % 1  # in [0, 1), unlike one another, and the same everywhere
    pixels = golden.float().reshape(PROBE_IMAGES, 3, image_size, image_size).to(device)
    set_evaluation_mode(classifier)
    with torch.no_grad(), one_thread():
        logits = call_classifier(classifier, pixels, source, "fixed images that tell it from others").double().cpu()
    relative = logits / logits.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    return (relative[:, :PROBE_CLASSES] * PROBE_STEPS).round().nan_to_num().to(torch.int32).contiguous()


def weights_hash(classifier: nn.Module) -> str:
    """Hexadecimal SHA-256 over the state dict: every entry's name, type, shape and bytes, in order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(classifier.state_dict().items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            digest.update(f"{name}\x00{tensor.dtype}\x00{tuple(tensor.shape)}\x00".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name}\x00{value!r}\x00".encode())
    return digest.hexdigest()


def _find(name: str) -> Callable[..., Any]:
    module_name, colon, function_name = name.partition(":")
    if not colon or not module_name or not function_name.isidentifier():
        raise InvalidInput(f"{name!r} names no function: write package.module:function")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidInput(
                f"there is no module {error.name} (of {name}), neither installed nor in {os.getcwd()}"
            ) from error
        raise InvalidInput(f"{module_name} needs the module {error.name}, which is not installed") from error
    except Exception as error:
        raise RunFailure(f"importing {module_name} failed: {type(error).__name__}: {error}{_place(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        offered = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise InvalidInput(f"{module_name} has no function {function_name}; it has {', '.join(offered) or 'none'}")
    return function


def _place(error: Exception) -> str:
    """The innermost line of the traceback: where in the user's code to look."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace is not None else ""
