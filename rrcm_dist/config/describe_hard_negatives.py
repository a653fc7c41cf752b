"""What `--dry-run` says of hard negatives: bank, mining, columns."""

from rrcm_dist.config.gpus import Machine
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.files import gigabytes

Rows = list[tuple[str, str, str]]
"""(what, how much, remark)"""


def describe_hard_negatives(
    recipe: PretrainConfig | FinetuneConfig, machine: Machine, samples: int | None
) -> list[tuple[str, Rows]]:
    """A section for a recipe that has them; `samples`: training images, where that is known."""
    if not isinstance(recipe, PretrainConfig) or recipe.additions.hard_negatives is None:
        return []
    return [(f"Hard negatives, memory per GPU on {machine}", _hard_negatives(recipe, machine, samples))]


def _hard_negatives(recipe: PretrainConfig, machine: Machine, samples: int | None) -> Rows:
    config, width = recipe.additions.hard_negatives, recipe.projector.output
    assert config is not None
    if samples is None:
        million = gigabytes(config.bank_bytes(1_000_000, width, machine.gpus))
        return [("bank", f"{million} per million images", "their number is unknown: the shards are not here")]
    if problem := config.problem(samples):
        return [("cannot run", "", problem)]
    bank, mining = (size(samples, width, machine.gpus) for size in (config.bank_bytes, config.mining_bytes))
    columns = config.count * (recipe.training.batch if config.columns == "shared" else 1)
    share = f"{samples:,} × {width} {config.precision} over {machine.gpus} GPUs, and what is known of each sample"
    verdict = ""
    if bank + mining > machine.gpu.memory_gb * 1e9:
        verdict = f"DOES NOT FIT in {machine.gpu.memory_gb:g} GB: more GPUs, or precision fp16"
    return [
        ("bank", gigabytes(bank), verdict or share),
        ("while mining", gigabytes(mining), f"every {config.interval} steps"),
        ("columns", f"{columns:,}", f"beside {recipe.training.batch} keys, of each query in both contrastive terms"),
    ]
