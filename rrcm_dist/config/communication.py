"""What one rank sends in a training step: formulas of (recipe, ranks), bytes. Nothing is built, torch is not needed.

Collectives are counted as rings, which send the least that is possible (Patarasuk and Yuan 2009; NCCL has such): of S
bytes in all, a gather or a reduce-scatter sends (R - 1)/R · S from each of R ranks, an all-reduce twice that. All is
float32, under bf16 autocast too: master weights, their gradients, keys.

DeepSpeed 0.19 at stages 1 and 2 reduces a gradient to all ranks and lets each keep its part, as `reduce_scatter` with
`use_multi_rank_bucket_allreduce` does; the parts of the new weights are gathered after the update. At stage 2 and 3
every backward pass reduces what it touched. At stage 3 every pass, forward or backward, gathers the parameters of the
modules it goes through; small ones that persist (`training.persistence_threshold`) save none of it, as passes of
several kinds alternate and DeepSpeed forgets what it gathered.
"""

from rrcm_dist.config.estimate import (
    block_parameters,
    encoder_parameters,
    head_parameters,
    network_parameters,
    patch_parameters,
    projector_parameters,
    shares,
)
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig

FLOAT = 4
FLAGS = 4
"""Numbers that a rank puts on the guard's table."""
PROBE_CLASSES = 1000
"""Assumed for the online probe: the recipe does not say how many classes the shards have."""


def sent_bytes(recipe: PretrainConfig | FinetuneConfig, ranks: int) -> dict[str, float]:
    """Bytes that one of `ranks` ranks sends in a step, by purpose."""
    scatter = (ranks - 1) / ranks
    stage = recipe.training.zero_stage
    reduced, gathered = reduced_parameters(recipe, ranks), gathered_parameters(recipe, ranks)
    uses: dict[str, float] = {}
    if isinstance(recipe, PretrainConfig):
        share, _ = shares(recipe, ranks)
        keys = 2 * recipe.projector.output + recipe.encoder.width
        uses["keys of the loss"] = (ranks - 1) * share * keys * FLOAT
        uses["batch-norm statistics"] = 2 * scatter * batch_norm_values(recipe) * FLOAT
        if recipe.probe.on:
            uses["probe's gradient"] = 2 * scatter * head_parameters(recipe.encoder.width, PROBE_CLASSES) * FLOAT
    uses["gradients"] = (1 if stage == 3 else 2) * scatter * reduced * FLOAT
    uses["parameters"] = scatter * gathered * FLOAT
    uses["gradient norm, flags"] = (2 * scatter * (stage > 0) + (ranks - 1) * FLAGS) * FLOAT
    return uses


def trained_parameters(recipe: PretrainConfig | FinetuneConfig) -> int:
    """Parameters that have a gradient."""
    frozen = patch_parameters(recipe.encoder) if recipe.encoder.freeze_patch_embedding else 0
    if isinstance(recipe, FinetuneConfig):
        width = recipe.encoder.width
        frozen += 0 if recipe.final_norm else 2 * width
        frozen += 0 if recipe.train_head else head_parameters(width, recipe.classes)
    return network_parameters(recipe) - frozen


def batch_norm_values(recipe: PretrainConfig) -> int:
    """Sums that are exchanged for the projector's two batch norms: online forward and backward, target forward."""
    views, layers, moments, passes = 2, 2, 2, 3
    return views * layers * moments * passes * recipe.projector.hidden


def reduced_parameters(recipe: PretrainConfig | FinetuneConfig, ranks: int) -> int:
    """Gradients that are summed over ranks in a step: all once, and from stage 2 on those of every backward pass.

    In pre-training the projector has one backward pass, with the first micro-batch.
    """
    trained = trained_parameters(recipe)
    if recipe.training.zero_stage < 2:
        return trained
    more = micro_batches(recipe, ranks) - 1
    if isinstance(recipe, FinetuneConfig):
        return (1 + more) * trained
    return trained + more * (trained - projector_parameters(recipe.encoder.width, recipe.projector))


def gathered_parameters(recipe: PretrainConfig | FinetuneConfig, ranks: int) -> int:
    """Parameters that are gathered in a step: none at stage 0, the updated ones at 1 and 2, every pass's at 3.

    Passes of pre-training over k micro-batches: target k; less noisy k; without a graph k - 1; with one k forward and
    k backward. The projector passes once forward in the target and once forward and backward online. Activation
    checkpointing gathers the blocks of a backward pass once more, to compute them again, but for the MLP's last layer:
    computing again ends within it, and the backward pass finds it gathered.
    """
    stage, cuts = recipe.training.zero_stage, micro_batches(recipe, ranks)
    if stage < 3:
        return trained_parameters(recipe) if stage else 0
    encoder = encoder_parameters(recipe.encoder)
    width, again = recipe.encoder.width, int(recipe.training.activation_checkpointing)
    last_layer = (int(width * recipe.encoder.mlp_ratio) + 1) * width
    blocks = again * recipe.encoder.depth * (block_parameters(recipe.encoder) - last_layer)
    if isinstance(recipe, FinetuneConfig):
        return cuts * (2 * network_parameters(recipe) + blocks)
    without_graph, with_graph = 2 * cuts + (cuts - 1), 2 * cuts
    projector = projector_parameters(width, recipe.projector)
    return (without_graph + with_graph) * encoder + cuts * blocks + 3 * projector


def micro_batches(recipe: PretrainConfig | FinetuneConfig, ranks: int) -> int:
    """In how many parts a rank encodes its share of the batch."""
    share, micro = shares(recipe, ranks)
    return -(-share // micro)
