"""An encoder or classifier at one noise level as ONNX, for any number of images."""

import importlib.util
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import gigabytes, require_free_space, whole_file
from rrcm_dist.models.classifier import NoisyPixelClassifier
from rrcm_dist.models.exporting import Program
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.representation import Representation
from rrcm_dist.noise import conditioning_level
from rrcm_dist.progress import progress_bar

PACKAGES = ("onnx", "onnxscript")
TRACED_BATCH, CHECKED_BATCHES = 2, (1, 5)
LARGEST_DIFFERENCE = 1e-4
"""Of ONNX Runtime's outputs from the network's, relative to the largest output."""
LARGEST_FILE = 2**31
"""Bytes that one protobuf message, and so one .onnx, can hold."""


def export_onnx(file: Path, output: Path, sigma: float, encoder_only: bool = False) -> Program:
    """Write the network at noise σ as one .onnx: [0, 1] pixels plus noise σ, (N, 3, H, W) float32 → (N, …) float32.

    It gives the logits of a fine-tuned network, or, pre-trained or asked for by `encoder_only`, representations.
    Where onnxruntime is installed, the file is compared with the network before it is kept.

    Raises `InvalidInput` where the file is not ours, onnx or onnxscript is missing or the weights are too large, and
    `RunFailure` where they cannot be exported or the numbers differ.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"ONNX needs {' and '.join(missing)}, which is not here: pip install 'rrcm-dist[onnx]', or export otherwise"
        )
    trained, recipe = trained_network(file)
    size, classifies = recipe.encoder.image_size, isinstance(recipe, FinetuneConfig) and not encoder_only
    # An encoder answers as a classifier does, with its representation in the place of logits.
    answering = trained if classifies else Representation(trained)
    module = NoisyPixelClassifier(answering, conditioning_level(recipe.noise, sigma)).eval().requires_grad_(False)
    _require_room(module, output)
    width = recipe.classes if classifies and isinstance(recipe, FinetuneConfig) else recipe.encoder.width
    program = Program(
        f"images: (N, 3, {size}, {size}) float32, [0, 1] pixels plus noise of standard deviation {sigma:g}",
        f"{_output_name(classifies)}: (N, {width}) float32",
    )
    about = {"recipe": recipe.model_dump_json(), "sigma": f"{sigma:g}", "takes": program.takes, "gives": program.gives}
    with whole_file(output) as aside, progress_bar(f"exporting {output.name}", 2, unit="steps") as bar:
        _write(module, aside, size, _output_name(classifies), about)
        bar.advance(1, "comparing")
        if importlib.util.find_spec("onnxruntime") is not None:
            _compare(module, aside, size)
        bar.advance()
    return program


def _output_name(classifies: bool) -> str:
    return "logits" if classifies else "representations"


def _require_room(module: nn.Module, output: Path) -> None:
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size_bytes >= LARGEST_FILE:
        raise InvalidInput(f"one .onnx holds less than {gigabytes(LARGEST_FILE)}, not {gigabytes(size_bytes)}")
    require_free_space(output.parent, size_bytes, str(output))


def _write(module: nn.Module, file: Path, size: int, output_name: str, about: dict[str, str]) -> None:
    try:
        program = torch.onnx.export(
            module,
            (_noisy(TRACED_BATCH, size),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["images"],
            output_names=[output_name],
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunFailure(f"torch {torch.__version__} cannot export this network as ONNX ({reason})") from error
    assert program is not None
    program.model.metadata_props.update({"rrcm-dist": json.dumps(about)})
    program.save(str(file), external_data=False)


def _compare(module: nn.Module, file: Path, size: int) -> None:
    """Raise `RunFailure` unless ONNX Runtime gives the module's numbers at other batch sizes than traced."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for count in CHECKED_BATCHES:
        noisy = _noisy(count, size)
        with torch.no_grad():
            expected = module(noisy)
        actual = torch.from_numpy(session.run(None, {"images": noisy.numpy()})[0])
        difference = float((actual - expected).abs().max() / expected.abs().max())
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailure(
                f"ONNX Runtime {onnxruntime.__version__} differs from the network by {difference:.1e} on {count} "
                "images; nothing was written: export as torch, or with another torch"
            )


def _noisy(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
