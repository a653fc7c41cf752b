"""A vision model of timm as a teacher, with weights from a local file."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models.checkpoint_files import own_metadata
from rrcm_dist.models.weights import read_named_tensors
from rrcm_dist.torchvision_compat import allow_cpu_torch

INTERPOLATIONS = ("bilinear", "bicubic")
SHOWN_NAMES = 6


class TimmTokens(nn.Module):
    """[-1, 1] images → timm's last feature map, through the model's own normalisation and its final norm."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, input_size: int) -> None:
        super().__init__()
        import timm

        data = timm.data.resolve_model_data_config(model)
        self.model, self.input_size = model, input_size
        self.interpolation = data["interpolation"] if data["interpolation"] in INTERPOLATIONS else "bicubic"
        self.register_buffer("mean", torch.tensor(data["mean"])[:, None, None])
        self.register_buffer("deviation", torch.tensor(data["std"])[:, None, None])

    @classmethod
    def read(cls, path: Path, name: str | None, grid: int) -> "TimmTokens":
        """The model of timm's `name` with the weights of a file, or that of a folder in Hugging Face's layout.

        Its input is as large as gives `grid` by `grid` tokens, by its stride. Raises `InvalidInput` where timm does not
        know it, it has no patch tokens, or the weights are not its own.
        """
        allow_cpu_torch()
        source = f"local-dir:{path}" if path.is_dir() else name
        assert source is not None
        if path.is_dir() and name is not None:
            raise InvalidInput(f"the teacher {path} is a folder that names its model: leave teacher.model null")
        model = _created(source)
        size = grid * _stride(model, source)
        if hasattr(model, "set_input_size"):
            try:
                model.set_input_size(img_size=(size, size))  # type: ignore[operator]
            except (AssertionError, ValueError, RuntimeError, TypeError) as error:
                raise InvalidInput(
                    f"the teacher {source} cannot be brought to {size} × {size} pixels, where its tokens would match "
                    f"the student's {grid} × {grid} patches ({error}): name another teacher, or change encoder.patch"
                ) from error
        _load(model, _weights_file(path), source)
        return cls(model, size)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] → (n, rows, columns, width)."""
        normalised = (images.add(1).div(2) - self.mean) / self.deviation
        (tokens,) = self.model.forward_intermediates(  # type: ignore[operator]
            normalised, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return tokens.permute(0, 2, 3, 1)


def _created(source: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(source, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, AssertionError) as error:
        raise InvalidInput(f"timm {timm.__version__} cannot make the teacher {source} ({error})") from error


def _stride(model: nn.Module, source: str) -> int:
    """Pixels between two tokens."""
    features: Any = getattr(model, "feature_info", None)
    if not hasattr(model, "forward_intermediates") or not features:
        raise InvalidInput(f"the teacher {source} has no patch tokens that timm gives out: name another teacher")
    return int(features[-1]["reduction"])


def _weights_file(path: Path) -> Path:
    if path.is_file():
        if own_metadata(path) is not None:
            raise InvalidInput(f"the teacher {path} is a weights file of ours: leave teacher.model null")
        return path
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise InvalidInput(f"the teacher {path} has no model.safetensors and no pytorch_model.bin")


def _load(model: nn.Module, file: Path, source: str) -> None:
    """Every tensor of the model from the file, which may hold a classifier besides."""
    tensors = read_named_tensors(file)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        found = dict(convert(tensors, model)) if convert else tensors
        own = model.state_dict()
        missing = [name for name in own if name not in found]
        wrong = [name for name, tensor in own.items() if name in found and found[name].shape != tensor.shape]
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise InvalidInput(f"{file} is not of the teacher {source}: timm cannot read it as such ({error})") from error
    beside = [name for name in found if name not in own and not name.startswith(_classifiers(model))]
    for names, what in ((missing, "lacks"), (wrong, "has in another shape"), (beside, "has besides")):
        if names:
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            raise InvalidInput(
                f"{file} is not of the teacher {source}: it {what} {', '.join(names[:SHOWN_NAMES])}{more}"
            )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found.values() if tensor.is_floating_point()):
        raise RunFailure(f"{file} holds numbers that are not finite: is it damaged?")
    model.load_state_dict({name: found[name] for name in own})


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """How the names of what classifies begin; heads of self-supervision are not read either."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
