"""The part of a trained network that gives representations: of pre-training, or of fine-tuning without its head."""

from torch import Tensor, nn

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.models.rrcm import FinetuningNetwork, PretrainingNetwork


class Representation(nn.Module):
    """Noisy [-1, 1] images (N, 3, H, W) and noise levels t (N,) → float32 representations (N, width)."""

    def __init__(self, network: PretrainingNetwork | FinetuningNetwork) -> None:
        """Of a fine-tuned network it is what its head sees, with or without the final LayerNorm."""
        super().__init__()
        self.encoder = network.encoder
        self._final_norm = network.final_norm if isinstance(network, FinetuningNetwork) else True

    def forward(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Representations, float32."""
        return self.encoder(noisy, t, self._final_norm)


def usual_sigma(recipe: PretrainConfig | FinetuneConfig) -> float:
    """The noise that a network is used under unless told otherwise: that of its fine-tuning, else none."""
    return recipe.sigma if isinstance(recipe, FinetuneConfig) else 0.0
