"""The network that is pre-trained (encoder and projector) and the one that is fine-tuned (encoder and linear head)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rrcm_dist.config.parts import EncoderConfig, NoiseConfig, ProjectorConfig
from rrcm_dist.distributed.batch_norm import GlobalBatchNorm
from rrcm_dist.models.encoder import Encoder
from rrcm_dist.random_streams import Purpose, stream_key


class Projector(nn.Sequential):
    """Three linear layers, the first two followed by global batch norm and ReLU: (views, n, D) → (views, n, output).

    Positions within the sequence are those of the released weights.
    """

    def __init__(self, width: int, config: ProjectorConfig, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(Purpose.INITIALIZATION, seed, "projector") & 0xFFFF_FFFF)
            super().__init__(
                nn.Linear(width, config.hidden, bias=False),
                GlobalBatchNorm(config.hidden),
                nn.ReLU(),
                nn.Linear(config.hidden, config.hidden, bias=False),
                GlobalBatchNorm(config.hidden),
                nn.ReLU(),
                nn.Linear(config.hidden, config.output, bias=False),
            )


class PretrainingNetwork(nn.Module):
    """Encoder and projector; the online network and, averaged, the target network.

    The online one may bear heads that rRCM itself does not have, each of which makes a loss of a block's tokens.
    """

    def __init__(
        self, encoder: EncoderConfig, projector: ProjectorConfig, noise: NoiseConfig, seed: int, precision: str = "fp32"
    ) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, noise.sigma_data, seed)
        self.projector = Projector(encoder.width, projector, seed)
        self.precision = precision
        self.heads = nn.ModuleDict()
        self._after_block: dict[str, int] = {}

    def add_head(self, name: str, after_block: int, head: nn.Module) -> None:
        """Have `head` make a loss of the tokens after a block, counted from 1; not of the last one.

        It is called with tokens (views, m, tokens, D) and the inputs given to `forward`, and returns (m,) losses.
        """
        self.heads[name] = head
        self._after_block[name] = after_block

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        others: Tensor | None = None,
        project: int = 0,
        head_inputs: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Encode views of a micro-batch; with the representations of the batch's other samples, project whole views.

        Args:
            noisy: (views, m, 3, H, W) float32, [-1, 1] pixels plus noise.
            t: (views,) float32, each view's noise level.
            others: (views, n - m, D) float32, representations of the local batch's other samples, or None where m = n.
            project: number of leading views that pass the projector; their batch statistics are over the global batch.
            head_inputs: by name of a head, what it is given besides the tokens; others are not called.

        Returns:
            (views, n, D) representations, (project, n, output) projections, and (m,) losses by name of a head, float32.
        """
        views, m = noisy.shape[:2]
        losses: dict[str, Tensor] = {}

        def seen(block: int, tokens: Tensor) -> None:
            for name, inputs in (head_inputs or {}).items():
                if self._after_block[name] == block:
                    losses[name] = self.heads[name](tokens.unflatten(0, (views, m)), inputs).float()

        with autocast(self.precision, noisy.device):
            flat, levels = noisy.flatten(0, 1), t.repeat_interleave(m)
            representations = self.encoder(flat, levels, seen=seen if head_inputs else None).view(views, m, -1)
            if others is not None:
                representations = torch.cat([representations, others], dim=1)
            projections = self.projector(representations[:project]).float() if project else representations[:0]
        return representations, projections, losses


class FinetuningNetwork(nn.Module):
    """Encoder and one linear layer, for one σ."""

    def __init__(
        self,
        encoder: EncoderConfig,
        classes: int,
        final_norm: bool,
        noise: NoiseConfig,
        seed: int = 0,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.encoder = Encoder(encoder, noise.sigma_data, seed)
        self.head = nn.Linear(encoder.width, classes)
        self.final_norm, self.precision = final_norm, precision
        if not final_norm:
            self.encoder.norm.requires_grad_(False)  # unused; ZeRO stage 3 would apply a stale gradient to it
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(Purpose.INITIALIZATION, seed, "head") & 0xFFFF_FFFF)
            nn.init.trunc_normal_(self.head.weight, std=2e-5)
            nn.init.zeros_(self.head.bias)

    def forward(self, noisy: Tensor, t: Tensor) -> Tensor:
        """(N, 3, H, W) noisy [-1, 1] pixels conditioned on levels t (N,) → (N, classes) float32 logits."""
        with autocast(self.precision, noisy.device):
            logits = self.head(self.encoder(noisy, t, self.final_norm))
        return logits.float()


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bf16 autocast where `precision` asks for it, else none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
