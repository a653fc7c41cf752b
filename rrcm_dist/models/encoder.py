"""The rRCM encoder: a pre-norm vision transformer with a class token, a time token and learned positions.

Parameters bear the names of the released weights (and of timm's vision transformers).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrcm_dist.config.parts import EncoderConfig
from rrcm_dist.models.attention import Attention
from rrcm_dist.models.block_running import BlockFunction, block_function, run_block
from rrcm_dist.models.linear import LinearAfterGelu, keeping_its_input
from rrcm_dist.noise import input_scale, sinusoidal_embedding, time_condition
from rrcm_dist.random_streams import Purpose, stream_key

CHANNELS = 3
EXTRA_TOKENS = 2
"""The class token and the time token, before the patches."""


class PatchEmbedding(nn.Module):
    """(N, 3, H, W) → (N, patches, width), one token per patch."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, width, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Row-major patches, as tokens.

        The convolution is computed as one matrix product over cut-out patches: the same numbers, and on CPU faster.
        """
        patch = self.proj.kernel_size[0]
        n, channels, height, width = images.shape
        cut = images.reshape(n, channels, height // patch, patch, width // patch, patch)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * patch * patch)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = LinearAfterGelu(hidden, width)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Of norm(x): (…, width) → (…, width)."""
        return self.fc2(keeping_its_input(lambda x: self.fc1(norm(x)), x))


class Block(nn.Module):
    """Pre-norm transformer block; both norms in float32 under autocast."""

    def __init__(self, width: int, heads: int, mlp_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_hidden)

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        """(batch, tokens, width) → the same shape, or its first `read` tokens where no others will be read."""
        x = x[:, :read] + self.attn(x, self.norm1, read)
        return x + self.mlp(x, self.norm2)


class Encoder(nn.Module):
    """Noisy images at a noise level → representation.

    The tokens are [class, time, patches]. The representation is the class token after the last block, by default
    through the final LayerNorm.
    """

    def __init__(self, config: EncoderConfig, sigma_data: float, seed: int = 0) -> None:
        super().__init__()
        self.config, self.sigma_data = config, sigma_data
        self.run_block: BlockFunction = run_block
        width = config.width
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(Purpose.INITIALIZATION, seed, "encoder") & 0xFFFF_FFFF)
            self.patch_embed = PatchEmbedding(config.patch, width)
            hidden = int(width * config.mlp_ratio)
            self.blocks = nn.ModuleList(Block(width, config.heads, hidden) for _ in range(config.depth))
            self.norm = nn.LayerNorm(width)
            patches = (config.image_size // config.patch) ** 2
            self.cls_token = nn.Parameter(torch.empty(1, 1, width))
            self.pos_embed = nn.Parameter(torch.empty(1, EXTRA_TOKENS + patches, width))
            self._initialize()
        if config.freeze_patch_embedding:
            self.patch_embed.requires_grad_(False)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        final_norm: bool = True,
        seen: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Encode images that already carry noise of level t.

        Args:
            noisy: (N, 3, H, W) float32, pixels in [-1, 1] plus noise.
            t: (N,) float32 noise levels on [-1, 1] pixels, positive.
            final_norm: whether the class token passes the final LayerNorm.
            seen: called with k (from 1) and the tokens (N, tokens, width) after each block k but the last.

        Returns:
            (N, width) representations; float32.
        """
        x = self._embedded(noisy, t)
        run = self.run_block if self.training else run_block
        for number, block in enumerate(self.blocks[:-1], start=1):
            x = run(block, x, None)
            if seen is not None:
                seen(number, x)
        # Only the class token is read: the last block need not compute what becomes of the others.
        x = run(self.blocks[-1], x, 1)[:, 0]
        return self.norm(x).float() if final_norm else x.float()

    def tokens_after(self, noisy: Tensor, t: Tensor, blocks: int) -> Tensor:
        """All tokens after the first `blocks` blocks, (N, tokens, width) float32: class, time, patches; else as
        `forward`."""
        x = self._embedded(noisy, t)
        run = self.run_block if self.training else run_block
        for block in self.blocks[:blocks]:
            x = run(block, x, None)
        return x.float()

    def _embedded(self, noisy: Tensor, t: Tensor) -> Tensor:
        scaled = noisy * input_scale(t, self.sigma_data)[:, None, None, None]
        time_token = sinusoidal_embedding(time_condition(t), self.config.width)[:, None]
        class_token = self.cls_token.expand(noisy.shape[0], -1, -1)
        return torch.cat([class_token, time_token, self.patch_embed(scaled).float()], dim=1) + self.pos_embed

    def _initialize(self) -> None:
        if self.config.initialization == "moco_v3":
            _initialize_like_moco_v3(self.blocks, self.patch_embed.proj)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)


def run_blocks(module: nn.Module, checkpointing: bool, compiled: bool) -> None:
    """Let every Encoder within `module` run its blocks in training as `block_function` says."""
    for part in module.modules():
        if isinstance(part, Encoder):
            part.run_block = block_function(checkpointing, compiled)


def _initialize_like_moco_v3(blocks: nn.ModuleList, patch_convolution: nn.Conv2d) -> None:
    """Uniform ±sqrt(6 / (fan in + fan out)), q, k and v as three matrices; zero biases (Chen et al. 2021)."""
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            fan_out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            bound = math.sqrt(6 / (module.in_features + fan_out))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    patch = patch_convolution.kernel_size[0]
    bound = math.sqrt(6 / (CHANNELS * patch**2 + patch_convolution.out_channels))
    nn.init.uniform_(patch_convolution.weight, -bound, bound)
    if patch_convolution.bias is not None:
        nn.init.zeros_(patch_convolution.bias)
