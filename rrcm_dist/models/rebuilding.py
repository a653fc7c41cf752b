"""From a recipe, or a weights file of ours, to the network it describes."""

from pathlib import Path

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.models.checkpoint_files import require_own
from rrcm_dist.models.rrcm import FinetuningNetwork, PretrainingNetwork
from rrcm_dist.models.weights import load_into, read_weights


def network_of(recipe: PretrainConfig | FinetuneConfig) -> PretrainingNetwork | FinetuningNetwork:
    """The recipe's network as it is initialised, in float32 on the CPU."""
    if isinstance(recipe, PretrainConfig):
        return PretrainingNetwork(recipe.encoder, recipe.projector, recipe.noise, recipe.seed)
    return FinetuningNetwork(recipe.encoder, recipe.classes, recipe.final_norm, recipe.noise, recipe.seed)


def trained_network(file: Path) -> tuple[PretrainingNetwork | FinetuningNetwork, PretrainConfig | FinetuneConfig]:
    """The network in a weights file of ours, in evaluation mode, and its recipe.

    A pre-trained file may hold an encoder alone; its projector is then as initialised. Raises `InvalidInput` where the
    file is not ours or lacks any other part.
    """
    metadata = require_own(file)
    network = network_of(metadata.recipe)
    required = "encoder." if isinstance(network, PretrainingNetwork) else ""
    load_into(network, read_weights(file).tensors, str(file), required)
    return network.eval(), metadata.recipe
