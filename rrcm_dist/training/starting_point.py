"""What fine-tuning starts from: a pre-trained encoder, or none."""

import logging

from rrcm_dist.config.schema import FinetuneConfig
from rrcm_dist.models.checkpoint_files import weights_file
from rrcm_dist.models.rrcm import FinetuningNetwork
from rrcm_dist.models.weights import load_into, read_weights

log = logging.getLogger(__name__)


def start_encoder(network: FinetuningNetwork, recipe: FinetuneConfig) -> None:
    """Load the recipe's `start_from` into the network's encoder; nothing where it trains from scratch.

    Raises `InvalidInput` where the weights are of another shape or lack a part of the encoder.
    """
    if recipe.start_from is None:
        return
    file = weights_file(recipe.start_from, recipe.start_weights)
    weights = {name: tensor for name, tensor in read_weights(file).tensors.items() if name.startswith("encoder.")}
    report = load_into(network, weights, str(file), required="encoder.")
    log.info("starting from %s: %d tensors of the encoder", file, len(report.loaded))
