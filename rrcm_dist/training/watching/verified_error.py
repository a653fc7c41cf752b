"""Clean and verified error on held-out images at the recipe's target ε."""

import torch
from torch import Tensor, nn

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.data.index import DatasetIndex
from rrcm_dist.distributed.world import World
from rrcm_dist.interval.images import network_pixels
from rrcm_dist.interval.verification import evaluation_mode, layers_of, verified_margins
from rrcm_dist.training.watching.evaluation import HeldOutImages, held_out_index


class VerifiedError:
    """Held-out images are read once, on first use."""

    def __init__(self, recipe: IbpConfig, train: DatasetIndex, world: World) -> None:
        """Raises `InvalidInput` where held-out and training data have different classes."""
        self._recipe, self._world = recipe, world
        self._index = held_out_index(recipe.data, train)
        self._images: HeldOutImages | None = None

    @torch.no_grad()
    def run(self, network: nn.Module) -> dict[str, float]:
        """'held_out_clean_error' and 'held_out_verified_error'; empty where the recipe names no held-out data.

        Every rank must call it.
        """
        if self._index is None:
            return {}
        recipe = self._recipe
        if self._images is None:
            count, size = recipe.evaluation.images, recipe.network.image_size
            self._images = HeldOutImages(self._index, count, size, recipe.seed, self._world, recipe.data.workers)
        with evaluation_mode(network):
            answers = self._images.outputs(lambda images: self._answers(network, images), sigma=0.0)
        right = answers[:, 0].long() == self._images.labels
        verified = right & (answers[:, 1] > 0)
        return {
            "held_out_clean_error": 1 - right.float().mean().item(),
            "held_out_verified_error": 1 - verified.float().mean().item(),
        }

    def _answers(self, network: nn.Module, images: Tensor) -> Tensor:
        """[-1, 1] images (n, 3, H, W) → (n, 2): the class, and the lower bound of its margin over the others."""
        decoded = images.add(1).mul(127.5).round().to(torch.uint8)
        pixels = network_pixels(decoded, self._recipe.network.channels, self._world.device)
        classes = network(pixels).argmax(dim=1)
        # The layers alone: on the network around them DeepSpeed has hooks, with which none is verified.
        margins = verified_margins(layers_of(network), pixels, classes, self._recipe.epsilon.target)
        return torch.stack([classes.float(), margins], dim=1)
