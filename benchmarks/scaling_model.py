"""A step's time on many GPUs from one GPU's step and an alpha-beta model of the network (Hockney 1994).

Time of a message: α + bytes / bandwidth. Nodes of 8 GPUs, joined by NVLink; between nodes every GPU has a network link,
and collectives run as many rings (large messages) or a tree (small ones, all-reduce only), whichever is faster, as NCCL
chooses. A node's rings leave it by all of its links together.
"""

import math
from dataclasses import dataclass

from rrcm_dist.config.communication import gathered_parameters, micro_batches, sent_bytes
from rrcm_dist.config.estimate import BACKWARD, GRADIENT_VIEWS, network_parameters, reencoding_flops, shares, step_flops
from rrcm_dist.config.schema import PretrainConfig

BATCH_NORM_CALLS = 12
"""All-reduces of the projector's two batch norms: mean and variance, online forward and backward, target forward."""
MODULES_PER_BLOCK = 6
"""Each gathered by itself at ZeRO stage 3: two norms and four linear layers."""
LOSS_UTILISATION = 0.5
"""Share of the float32 peak that the loss's matrix products reach, by assumption."""


@dataclass(frozen=True)
class Network:
    """Links between GPUs, in one direction."""

    link_gb_s: float
    """Within a node."""
    network_gb_s: float
    """Of each GPU to other nodes."""
    link_latency: float
    """α within a node, seconds."""
    network_latency: float
    """α between nodes, seconds."""
    gpus_per_node: int = 8

    def bandwidth(self, gpus: int) -> float:
        """Of a GPU's part of the rings, bytes/s."""
        if gpus <= self.gpus_per_node:
            return self.link_gb_s * 1e9
        return min(self.link_gb_s, self.network_gb_s * self.gpus_per_node) * 1e9

    def ring_hop(self, gpus: int) -> float:
        """Latency of one step round a ring, seconds: that of its slowest link."""
        return self.link_latency if gpus <= self.gpus_per_node else self.network_latency

    def all_reduce(self, sent: float, gpus: int, calls: int = 1) -> float:
        """Seconds of `calls` all-reduces one after the other in which each GPU sends `sent` bytes in all."""
        if gpus == 1:
            return 0.0
        ring = 2 * (gpus - 1) * self.ring_hop(gpus)
        inside = min(gpus, self.gpus_per_node)
        tree = 2 * ((inside - 1) * self.link_latency + math.log2(gpus / inside) * self.network_latency)
        return calls * min(ring, tree) + sent / self.bandwidth(gpus)

    def ring(self, sent: float, gpus: int, calls: int = 1) -> float:
        """Seconds of gathers or reduce-scatters in which each GPU sends `sent` bytes in all."""
        return 0.0 if gpus == 1 else calls * (gpus - 1) * self.ring_hop(gpus) + sent / self.bandwidth(gpus)


@dataclass(frozen=True)
class Compute:
    """A step on one GPU: seconds = fixed + (FLOPs / rate), the loss's float32 products apart."""

    fixed_seconds: float
    """Launches, optimiser, host: what does not shrink with the images."""
    flops_per_second: float
    loss_flops_per_second: float


@dataclass(frozen=True)
class Prediction:
    """Of one step on so many GPUs; seconds."""

    gpus: int
    batch: int
    arithmetic: float
    fixed: float
    hidden: float
    """Of communication, behind computation."""
    exposed: dict[str, float]
    """What the step waits for, by purpose."""

    @property
    def communication(self) -> float:
        """Seconds that the step waits for messages."""
        return sum(self.exposed.values())

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.arithmetic + self.fixed + self.communication

    @property
    def images_per_second(self) -> float:
        """Of all GPUs together."""
        return self.batch / self.seconds


def predict(recipe: PretrainConfig, gpus: int, compute: Compute, network: Network, reduce_overlap: float) -> Prediction:
    """A step of `recipe` on `gpus`.

    The keys' gathers hide behind the online pass that follows them; of the gradients' reduction, as much as fits into
    the share `reduce_overlap` of the last backward pass.
    """
    flops = (step_flops(recipe) + reencoding_flops(recipe, gpus)) / gpus
    arithmetic = flops / compute.flops_per_second + _loss_flops(recipe, gpus) / compute.loss_flops_per_second
    seconds = _communication(recipe, gpus, network)
    cuts = micro_batches(recipe, gpus)
    gradient_passes = GRADIENT_VIEWS * (1 + BACKWARD) / 12 * arithmetic / cuts
    room = {
        "keys of the loss": gradient_passes / (1 + BACKWARD),
        "gradients": reduce_overlap * gradient_passes * BACKWARD / (1 + BACKWARD),
    }
    exposed = {use: max(0.0, time - room.get(use, 0.0)) for use, time in seconds.items()}
    hidden = sum(seconds.values()) - sum(exposed.values())
    return Prediction(gpus, recipe.training.batch, arithmetic, compute.fixed_seconds, hidden, exposed)


def _communication(recipe: PretrainConfig, gpus: int, network: Network) -> dict[str, float]:
    """Seconds by purpose, nothing hidden."""
    sent, stage = sent_bytes(recipe, gpus), recipe.training.zero_stage
    cuts = micro_batches(recipe, gpus)
    reductions = cuts if stage >= 2 else 1
    reduce = network.ring if stage == 3 else network.all_reduce
    modules = MODULES_PER_BLOCK * recipe.encoder.depth * gathered_parameters(recipe, gpus) / network_parameters(recipe)
    gathers = {0: 0, 1: 1, 2: 1, 3: round(modules)}
    return {
        "keys of the loss": network.ring(sent["keys of the loss"], gpus, calls=3),
        "batch norm": network.all_reduce(sent["batch-norm statistics"], gpus, calls=BATCH_NORM_CALLS),
        "probe": network.all_reduce(sent.get("probe's gradient", 0.0), gpus, calls=int(recipe.probe.on)),
        "gradients": reduce(sent["gradients"], gpus, calls=reductions),
        "parameters": network.ring(sent["parameters"], gpus, calls=gathers[stage]),
        "norm and flags": network.all_reduce(0.0, gpus) + network.ring(0.0, gpus),
    }


def _loss_flops(recipe: PretrainConfig, gpus: int) -> float:
    """Logits and their gradient for a GPU's queries against all keys."""
    share, _ = shares(recipe, gpus)
    return 4.0 * share * recipe.training.batch * (2 * recipe.projector.output + recipe.encoder.width)
