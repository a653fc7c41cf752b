"""An encoder that rRCM pre-trained as a teacher: its tokens of clean images at t_min."""

from pathlib import Path

import torch
from torch import Tensor, nn

from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.checkpoint_files import chosen_weights, own_metadata
from rrcm_dist.models.encoder import EXTRA_TOKENS, Encoder
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.rrcm import PretrainingNetwork


class OwnTokens(nn.Module):
    """[-1, 1] images → patch tokens before the last block, of which only the class token was ever trained."""

    interpolation = "bicubic"

    def __init__(self, encoder: Encoder, t_min: float) -> None:
        super().__init__()
        self.encoder, self._t_min = encoder, t_min
        self.input_size = encoder.config.image_size
        self._grid = encoder.config.image_size // encoder.config.patch
        self._blocks = encoder.config.depth - 1
        # What the tokens do not pass is no part of a teacher, neither of its memory nor of its count.
        encoder.blocks, encoder.norm = encoder.blocks[: self._blocks], nn.Identity()  # type: ignore[assignment]

    @classmethod
    def read(cls, path: Path, network: str) -> "OwnTokens":
        """From a run folder or checkpoint, of which `network` is taken, or a weights file.

        Raises `InvalidInput` where it is none of ours, of a fine-tuned network, or has no block before the last.
        """
        file = chosen_weights(path, network if path.is_dir() else None)
        metadata = own_metadata(file)
        if metadata is None:
            raise InvalidInput(
                f"the teacher {file} does not say which network it is: give timm's name of it as "
                "additions.representation_warmup.teacher.model, or a run of ours, or a folder with a config.json"
            )
        trained, recipe = trained_network(file)
        if not isinstance(trained, PretrainingNetwork):
            raise InvalidInput(
                f"the teacher {file} is of a fine-tuned network, which has learned from labels and knows images under "
                "its own noise alone, not clean ones: name a pre-training run"
            )
        if recipe.encoder.depth < 2:
            raise InvalidInput(
                f"the teacher {file} has one block, after which it has no patch tokens: name a deeper one"
            )
        return cls(trained.encoder, recipe.noise.t_min)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] → (n, rows, columns, width)."""
        t = torch.full((len(images),), self._t_min, device=images.device)
        tokens = self.encoder.tokens_after(images, t, self._blocks)[:, EXTRA_TOKENS:]
        return tokens.unflatten(1, (self._grid, self._grid))
