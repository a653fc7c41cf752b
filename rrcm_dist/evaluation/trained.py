"""A trained network ready to be evaluated."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.evaluation.images import Outputs, conditioned
from rrcm_dist.models.attention import use_attention
from rrcm_dist.models.checkpoint_files import chosen_weights, require_own
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.representation import Representation
from rrcm_dist.models.rrcm import FinetuningNetwork, PretrainingNetwork, autocast


@dataclass(frozen=True)
class Trained:
    """A network of a checkpoint, on a device, in evaluation mode, without gradients."""

    file: Path
    name: str
    """'online', 'target', 'average-0.999' or the like, or 'model'."""
    recipe: PretrainConfig | FinetuneConfig
    network: PretrainingNetwork | FinetuningNetwork
    device: torch.device
    precision: str
    """fp32 or bf16, by autocast."""

    @property
    def width(self) -> int:
        """D of its representations."""
        return self.recipe.encoder.width

    @property
    def image_size(self) -> int:
        """Height and width of its images."""
        return self.recipe.encoder.image_size

    def representations(self, sigma: float) -> Outputs:
        """Images under noise σ → (n, D) float32: what the projector, or the head, is given."""
        return conditioned(Representation(self.network), self.recipe.noise, sigma, self.precision)

    def classes_of(self, representations: Tensor) -> Tensor:
        """The answers of a fine-tuned network's head: (n, D) float32 → (n,) int64."""
        assert isinstance(self.network, FinetuningNetwork)
        with autocast(self.precision, self.device):
            return self.network.head(representations).argmax(dim=1)


def load_trained(checkpoint: Path, network: str | None, device: torch.device, precision: str | None = None) -> Trained:
    """The named network of a run folder, checkpoint folder or weights file of ours; None takes the only one there is.

    `precision` None is what it was trained in. Raises `InvalidInput` where there is none such, or several.
    """
    file = chosen_weights(checkpoint, network)
    trained, recipe = trained_network(file)
    trained.precision = precision or recipe.training.precision
    use_attention(trained, "auto", device)
    trained.to(device).eval().requires_grad_(False)
    return Trained(file, require_own(file).network, recipe, trained, device, trained.precision)
