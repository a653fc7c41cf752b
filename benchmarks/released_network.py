"""The network of the released rRCM code (jiachenlei/rRCM), module by module, as the peer of ours.

Written for comparison from what that code computes: a convolution cuts out the patches, every LayerNorm goes through
float32, attention is xFormers' where it runs, and every pass goes through the projector, whose batch norm and ReLU in
place are torch's. Parameters bear the released names. Its fallback without xFormers, which attends over heads, stands
corrected: torch's attention over tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrcm_dist.config.parts import EncoderConfig, ProjectorConfig
from rrcm_dist.errors import InvalidInput
from rrcm_dist.models.attention import AttentionFunction, attention_function
from rrcm_dist.noise import sinusoidal_embedding


class ReleasedNetwork(nn.Module):
    """(N, 3, H, W) scaled images and (N,) conditions → (N, output) projections and (N, width) representations."""

    def __init__(self, encoder: EncoderConfig, projector: ProjectorConfig, device: torch.device) -> None:
        super().__init__()
        width, patch = encoder.width, encoder.patch
        patches = (encoder.image_size // patch) ** 2
        attend = _attention(device, width // encoder.heads)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, kernel_size=patch, stride=patch)})
        self.blocks = nn.ModuleList(
            _Block(width, encoder.heads, int(width * encoder.mlp_ratio), attend) for _ in range(encoder.depth)
        )
        self.norm = _Float32LayerNorm(width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 + patches, width))
        self.projection_head = nn.Sequential(
            nn.Linear(width, projector.hidden, bias=False),
            nn.BatchNorm1d(projector.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(projector.hidden, projector.hidden, bias=False),
            nn.BatchNorm1d(projector.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(projector.hidden, projector.output, bias=False),
        )
        if encoder.freeze_patch_embedding:
            self.patch_embed.requires_grad_(False)

    def forward(self, images: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        time = sinusoidal_embedding(condition, self.pos_embed.shape[-1])[:, None]
        x = torch.cat([time, patches], dim=1)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        x = x.float()
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 0])
        return self.projection_head(x), x

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of our `PretrainingNetwork`."""
        renamed = {
            name.removeprefix("encoder.").replace("projector.", "projection_head."): w for name, w in weights.items()
        }
        self.load_state_dict(renamed)


class _Float32LayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, attend: AttentionFunction) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Float32LayerNorm(width), _Float32LayerNorm(width)
        self.attn = _Attention(width, heads, attend)
        self.mlp = _Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, attend: AttentionFunction) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        return self.proj(self.attend(q, k, v).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def _attention(device: torch.device, head_width: int) -> AttentionFunction:
    """xFormers in float16 on a GPU that runs it, else torch's attention over tokens."""
    try:
        return attention_function("xformers", device, torch.float16, head_width)
    except InvalidInput:
        return _torchs_attention


def _torchs_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
