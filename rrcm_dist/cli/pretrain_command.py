"""`rrcm pretrain`."""

from rrcm_dist.cli.options import (
    DeviceOption,
    DryRunOption,
    GpuKindOption,
    GpusOption,
    OverridesArgument,
    RecipeArgument,
    ResumeOption,
)
from rrcm_dist.config.schema import PretrainConfig


def command(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = "auto",
    device: DeviceOption = "auto",
    gpus: GpusOption = 8,
    gpu: GpuKindOption = "A800",
) -> None:
    """Pre-train an rRCM encoder from shards.

    One process: rrcm pretrain imagenet/pretrain-b data.train=SHARDS output=RUN
    Several GPUs: torchrun --nproc-per-node 8 -m rrcm_dist.cli.main pretrain imagenet/pretrain-b …

    Run the same command again after any interruption: it goes on from its newest good checkpoint, exactly.
    """
    from rrcm_dist.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), kind="pretrain")
    assert isinstance(loaded, PretrainConfig)
    if dry_run:
        from rrcm_dist.cli.dry_run import show_costs

        show_costs(loaded, gpus, gpu)
        return
    from rrcm_dist.cli.training import run_training

    run_training(loaded, device, resume)
