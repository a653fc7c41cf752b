"""What a recipe costs: parameters, FLOPs, memory. Formulas over the types: nothing is built, and torch is not needed.

Parameters are exact. A FLOP is a multiplication or an addition of a matrix product; norms, activation functions and the
optimiser are left out, as is usual. Memory is an estimate: allocators, kernels and communication take their own.
"""

import math

from rrcm_dist.config import ibp_estimate
from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.parts import EncoderConfig, ProjectorConfig
from rrcm_dist.config.schema import CertifyConfig, FinetuneConfig, PretrainConfig, SelectionConfig

CHANNELS = 3
EXTRA_TOKENS = 2
"""Class and time."""
BACKWARD = 2
"""A backward pass in forward passes: the products for the inputs' and for the weights' gradients."""
GRADIENT_VIEWS = 3
"""Passes of pre-training through the online network with a gradient: views a and b, and the noisier plain view."""
TARGET_VIEWS = 2
DETACHED_VIEWS = 1
"""The less noisy plain view, whose representation is only a key."""
RESERVED_BYTES = 2e9
"""Context, communication buffers and workspaces: a guess, the same for all."""
PART = 32
"""Most samples in a part of a training batch: many workers share one batch, and little memory waits in queues."""
MOST_READY = 64
"""Most parts that wait in queues, about 1 GB of shared memory at 224 pixels: some kernels allow few open files."""
LOGITS_AT_A_TIME = 2**24
"""Most logits of the loss in memory together (64 MiB): of a batch of 4096 on one GPU all, of 65 536 some rows' ones."""


def tokens(encoder: EncoderConfig) -> int:
    """Length of the sequence: class, time, patches."""
    return EXTRA_TOKENS + (encoder.image_size // encoder.patch) ** 2


def encoder_parameters(encoder: EncoderConfig) -> int:
    """Parameters of the encoder, the frozen ones included; the time token has none."""
    width = encoder.width
    embeddings = patch_parameters(encoder) + width + tokens(encoder) * width
    return embeddings + encoder.depth * block_parameters(encoder) + 2 * width


def patch_parameters(encoder: EncoderConfig) -> int:
    """The patch embedding: one linear layer with bias."""
    return (CHANNELS * encoder.patch**2 + 1) * encoder.width


def block_parameters(encoder: EncoderConfig) -> int:
    """One block: attention, MLP, two norms."""
    width, hidden = encoder.width, int(encoder.width * encoder.mlp_ratio)
    attention = 3 * width**2 + width**2 + width  # q, k, v without bias; output with
    mlp = 2 * width * hidden + hidden + width
    return attention + mlp + 2 * 2 * width


def projector_parameters(width: int, projector: ProjectorConfig) -> int:
    """Three linear layers without bias, two batch norms."""
    hidden = projector.hidden
    return width * hidden + 2 * hidden + hidden**2 + 2 * hidden + hidden * projector.output


def head_parameters(width: int, classes: int) -> int:
    """One linear layer with bias."""
    return width * classes + classes


def network_parameters(recipe: PretrainConfig | FinetuneConfig) -> int:
    """Parameters of the network that is trained: encoder and projector, or encoder and head."""
    width = recipe.encoder.width
    if isinstance(recipe, PretrainConfig):
        return encoder_parameters(recipe.encoder) + projector_parameters(width, recipe.projector)
    return encoder_parameters(recipe.encoder) + head_parameters(width, recipe.classes)


def forward_flops(encoder: EncoderConfig) -> float:
    """FLOPs of encoding one image (32.9e9 for rRCM-B/16 at 224): the last block goes on with the class token alone."""
    return published_forward_flops(encoder) - block_flops(encoder, tokens(encoder)) + block_flops(encoder, 1)


def published_forward_flops(encoder: EncoderConfig) -> float:
    """FLOPs of encoding one image with every token through every block (35.3e9 for rRCM-B/16 at 224)."""
    patches = (tokens(encoder) - EXTRA_TOKENS) * CHANNELS * encoder.patch**2 * encoder.width
    return 2.0 * patches + encoder.depth * block_flops(encoder, tokens(encoder))


def block_flops(encoder: EncoderConfig, read: int) -> float:
    """Of a block of which `read` tokens are read afterwards: k and v of all tokens, everything else of those."""
    length, width = tokens(encoder), encoder.width
    keys_and_values = 2 * width**2 * length
    linear = (2 + 2 * encoder.mlp_ratio) * width**2 * read
    return 2.0 * (keys_and_values + linear + 2 * length * read * width)


def projector_flops(width: int, projector: ProjectorConfig) -> float:
    """FLOPs of projecting one representation."""
    return 2.0 * (width * projector.hidden + projector.hidden**2 + projector.hidden * projector.output)


def step_flops(recipe: PretrainConfig | FinetuneConfig) -> float:
    """FLOPs that one step needs on its global batch, however it is cut up.

    Pre-training: 12 forward passes' worth per image (three passes with gradients, one detached, two of the target), and
    eight of the projector. Fine-tuning: every draw forward and backward.
    """
    forward = forward_flops(recipe.encoder)
    if isinstance(recipe, FinetuneConfig):
        head = 2.0 * recipe.encoder.width * recipe.classes
        return recipe.training.batch * recipe.draws * (1 + BACKWARD) * (forward + head)
    encodings = GRADIENT_VIEWS * (1 + BACKWARD) + DETACHED_VIEWS + TARGET_VIEWS
    projections = 2 * (1 + BACKWARD) + TARGET_VIEWS
    projecting = projections * projector_flops(recipe.encoder.width, recipe.projector)
    return recipe.training.batch * (encodings * forward + projecting)


def reencoding_flops(recipe: PretrainConfig | FinetuneConfig, gpus: int) -> float:
    """FLOPs that saving memory adds to a step.

    Micro-batches of pre-training: all but the first are encoded once more. Activation checkpointing: every pass with a
    gradient is computed once more in its backward pass.
    """
    share, micro = shares(recipe, gpus)
    again = 1.0 if recipe.training.activation_checkpointing else 0.0
    if isinstance(recipe, FinetuneConfig):
        return recipe.training.batch * again * recipe.draws * forward_flops(recipe.encoder)
    return recipe.training.batch * (again + 1 - micro / share) * GRADIENT_VIEWS * forward_flops(recipe.encoder)


def shares(recipe: TrainingRecipe, gpus: int) -> tuple[int, int]:
    """Images of a global batch per GPU, and how many of them are encoded at a time."""
    share = -(-recipe.training.batch // gpus)
    return share, min(share, recipe.training.micro_batch or share)


def total_steps(recipe: PretrainConfig | FinetuneConfig, samples: int | None) -> int | None:
    """Steps of the run; None where it is given in epochs and the number of training images is not known."""
    if recipe.training.steps is not None:
        return recipe.training.steps
    if samples is None or recipe.training.epochs is None:
        return None
    return recipe.training.epochs * (samples // recipe.training.batch)


def activation_bytes(encoder: EncoderConfig, images: int, precision: str, checkpointing: bool = False) -> float:
    """What `images` leave for the backward pass, attention keeping no matrix of tokens by tokens.

    Per token and block, in multiples of the width: two float32 inputs of norms (the residual stream), and in the
    network's precision two outputs of norms, q, k, v, the attention's output, and the MLP's hidden values before GELU;
    of the last block a norm's input and output, k and v. With checkpointing every block keeps its float32 input, and
    one block at a time all of it.
    """
    value_bytes = 2 if precision == "bf16" else 4
    block = 2 * 4 + value_bytes * (2 + 3 + 1 + encoder.mlp_ratio)
    last_block = 4 + value_bytes * 3
    whole = (encoder.depth - 1) * block + last_block
    return images * tokens(encoder) * encoder.width * (4 * encoder.depth + block if checkpointing else whole)


def memory_bytes(recipe: PretrainConfig | FinetuneConfig, gpus: int) -> dict[str, float]:
    """Estimated peak memory of one GPU by use, bytes.

    Weights, gradients, Adam's moments and ZeRO's own copy of the weights are float32; stage 1 shares the optimiser out
    over the GPUs, 2 the gradients too, 3 the weights too, those of the target network and of averages among them.
    """
    stage, settings = recipe.training.zero_stage, recipe.training
    share, micro = shares(recipe, gpus)
    state_bytes = 4.0 * network_parameters(recipe)
    weight_bytes = state_bytes / (gpus if stage == 3 else 1)
    pixel_bytes = 4.0 * CHANNELS * recipe.encoder.image_size**2
    views, copies = (recipe.draws, 2 + recipe.draws) if isinstance(recipe, FinetuneConfig) else (GRADIENT_VIEWS, 5)
    uses = {
        "weights": weight_bytes,
        "gradients": state_bytes / (gpus if stage >= 2 else 1),
        "optimiser": (2 * state_bytes if stage == 0 else 3 * state_bytes / gpus),
        "activations": activation_bytes(
            recipe.encoder, micro * views, settings.precision, settings.activation_checkpointing
        ),
        "images": share * pixel_bytes * copies,
        "reserved": RESERVED_BYTES,
    }
    if isinstance(recipe, PretrainConfig):
        uses["target network"] = weight_bytes
        uses["projector"] = share * 2 * 2 * recipe.projector.hidden * 12.0  # values, normalised, gradient
        uses["loss"] = loss_bytes(recipe, gpus)
    if settings.averages:
        uses["averages"] = len(settings.averages) * weight_bytes
    return uses


def loss_bytes(recipe: PretrainConfig, gpus: int) -> float:
    """Memory of one GPU's loss, its keys gathered from all GPUs included.

    Grows with the batch times the width of the keys, and with the logits only up to LOGITS_AT_A_TIME of them: neither
    (batch / GPUs) × batch nor batch² values are ever held.
    """
    batch, width, output = recipe.training.batch, recipe.encoder.width, recipe.projector.output
    share, _ = shares(recipe, gpus)
    keys = batch * (2 * output + width + max(width, output))  # gathered; one kind at a time normalised
    logits = 2 * min(share * batch, max(LOGITS_AT_A_TIME, batch))  # and their exponentials
    queries = 3 * share * (2 * output + width)  # normalised, their gradient, the inputs' gradient
    return 4.0 * (keys + logits + queries)


def checkpoint_networks(recipe: PretrainConfig | FinetuneConfig) -> int:
    """Size of a checkpoint in float32 networks: the trained one, Adam's two moments, the target network, averages."""
    return 3 + isinstance(recipe, PretrainConfig) + len(recipe.training.averages)


def checkpoint_bytes(recipe: TrainingRecipe) -> int:
    """Room that one checkpoint is given on the disk."""
    if isinstance(recipe, IbpConfig):
        return (3 + len(recipe.training.averages)) * 4 * ibp_estimate.network_parameters(recipe)
    return checkpoint_networks(recipe) * 4 * network_parameters(recipe)


def loader_queue_bytes(recipe: TrainingRecipe, ranks: int) -> int:
    """Shared memory that the parts of batches take which one of `ranks` ranks keeps ready; 0 without workers."""
    workers = recipe.data.workers
    if not workers:
        return 0
    share, _ = shares(recipe, ranks)
    ready = min(recipe.data.prefetch * math.ceil(share / PART), MOST_READY)
    parts = workers * max(2, math.ceil(ready / workers))
    views = GRADIENT_VIEWS if isinstance(recipe, PretrainConfig) else 1
    size = recipe.network.image_size if isinstance(recipe, IbpConfig) else recipe.encoder.image_size
    return parts * min(PART, share) * views * CHANNELS * size**2


def certification_draws(recipe: CertifyConfig, samples: int | None) -> int | None:
    """Noise draws in all, each one forward pass; None where the number of images is not known."""
    images = certified_images(recipe, samples)
    return None if images is None else images * len(recipe.classifiers) * (recipe.n0 + recipe.n)


def certified_images(recipe: CertifyConfig, samples: int | None) -> int | None:
    """How many images the recipe selects of `samples`; None where that is not known."""
    return selected_images(recipe.images, samples)


def selected_images(chosen: SelectionConfig, samples: int | None) -> int | None:
    """How many images are selected of `samples`; None where that is not known."""
    if chosen.positions is not None:
        return len(chosen.positions)
    if samples is None:
        return chosen.count
    available = len(range(chosen.start, samples, chosen.every))
    return available if chosen.count is None else min(available, chosen.count)
