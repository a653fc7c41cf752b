"""Weights of others, under the released names, as a weights file of ours; every key is accounted for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.models.checkpoint_files import OwnMetadata
from rrcm_dist.models.rebuilding import network_of
from rrcm_dist.models.weights import LoadReport, NamedWeights, load_into, read_weights, write_weights

NETWORKS = {"pretrain": ("online", "target"), "finetune": ("model",)}
"""Kind of recipe → the networks that its checkpoints hold."""
AVERAGES = ("target", "ema")
"""What the file of an averaged network has in its name, as in target_model.pth and nnet_ema.pth."""

Outcome = Literal["loaded", "kept as initialised", "not used"]


@dataclass(frozen=True)
class KeyOutcome:
    """What became of one tensor."""

    outcome: Outcome
    """kept as initialised: the network has it, the file does not; not used: the other way round."""
    released: str | None
    """Name in the file."""
    ours: str | None
    """Name in the network."""
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ImportReport:
    """What became of every key of the file and of the network."""

    source: str
    network: str
    """'online', 'target' or 'model'."""
    keys: tuple[KeyOutcome, ...]

    def count(self, outcome: Outcome) -> int:
        """How many tensors came to this."""
        return sum(key.outcome == outcome for key in self.keys)

    @property
    def has_projector(self) -> bool:
        """Whether the file written holds more than an encoder."""
        return any(key.outcome == "loaded" and not (key.ours or "").startswith("encoder.") for key in self.keys)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def import_weights(
    source: Path, recipe: PretrainConfig | FinetuneConfig, output: Path, network: str | None = None
) -> ImportReport:
    """Check the weights in `source` against the recipe's network and write them to `output` in our format.

    Args:
        source: a state dict (.pth, .pt, .net) or safetensors, under the released names or ours, with or without
            `module.`; online, averaged, or fine-tuned.
        recipe: of the network; a fine-tuned file needs a fine-tuning recipe.
        output: a .safetensors file that does not exist yet.
        network: 'online', 'target' or 'model'; None goes by the recipe and the file's name.

    The projector may be missing as a whole; the file written then holds an encoder alone. Raises `InvalidInput` naming
    every tensor of another shape, or that is needed and missing, and `RunFailure` where numbers are not finite.
    """
    _check_output(output)
    network = _checked_network(source, recipe, network)
    weights = read_weights(source)
    _check_kind(source, recipe, weights)
    built = network_of(recipe)
    loaded = load_into(built, weights.tensors, str(source), _required(recipe, weights))
    tensors = {name: tensor for name, tensor in built.state_dict().items() if name in loaded.loaded}
    _check_finite(source, tensors)
    write_weights(output, tensors, OwnMetadata(network, recipe).as_strings())
    return ImportReport(str(source), network, _outcomes(loaded, weights, built))


def _check_output(output: Path) -> None:
    if output.suffix != ".safetensors":
        raise InvalidInput(f"output {output} must end in .safetensors, the format that weights are written in")
    if output.exists():
        raise InvalidInput(f"output {output} exists already: name another, or move it away")


def _checked_network(source: Path, recipe: PretrainConfig | FinetuneConfig, network: str | None) -> str:
    known = NETWORKS[recipe.kind]
    if network is None:
        averaged = recipe.kind == "pretrain" and any(word in source.stem for word in AVERAGES)
        return "target" if averaged else known[0]
    if network not in known:
        raise InvalidInput(f"a {recipe.kind} recipe has no network {network!r}: choose {' or '.join(known)}")
    return network


def _check_kind(source: Path, recipe: PretrainConfig | FinetuneConfig, weights: NamedWeights) -> None:
    has_head = any(name.startswith("head.") for name in weights.tensors)
    if has_head and isinstance(recipe, PretrainConfig):
        raise InvalidInput(f"{source} has a classification head, so it is fine-tuned: give a fine-tuning recipe")
    if not has_head and isinstance(recipe, FinetuneConfig):
        raise InvalidInput(f"{source} has no classification head, so it is not fine-tuned: give a pre-training recipe")


def _required(recipe: PretrainConfig | FinetuneConfig, weights: NamedWeights) -> str | tuple[str, ...]:
    """Everything, except that a pre-trained file may lack the projector as a whole."""
    has_projector = any(name.startswith("projector.") for name in weights.tensors)
    return "" if has_projector or isinstance(recipe, FinetuneConfig) else "encoder."


def _check_finite(source: Path, tensors: dict[str, Tensor]) -> None:
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if bad:
        raise RunFailure(f"{source} holds numbers that are not finite, in {', '.join(bad)}: its training went wrong")


def _outcomes(loaded: LoadReport, weights: NamedWeights, network: nn.Module) -> tuple[KeyOutcome, ...]:
    def shape(tensor: Tensor) -> tuple[int, ...]:
        return tuple(tensor.shape)

    own = network.state_dict()
    return (
        *(KeyOutcome("loaded", weights.sources[name], name, shape(own[name])) for name in loaded.loaded),
        *(KeyOutcome("kept as initialised", None, name, shape(own[name])) for name in loaded.missing),
        *(KeyOutcome("not used", weights.sources[name], None, shape(weights.tensors[name])) for name in loaded.unused),
    )
