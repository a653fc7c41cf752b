"""`rrcm pretrain`."""

from rrcm_dist.cli.options import (
    AllowOption,
    DeviceOption,
    DryRunOption,
    GpuKindOption,
    GpusOption,
    OverridesArgument,
    RecipeArgument,
    ResumeOption,
)
from rrcm_dist.cli.training import train_or_estimate


def command(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = "auto",
    allow: AllowOption = None,
    device: DeviceOption = "auto",
    gpus: GpusOption = 8,
    gpu: GpuKindOption = "A800",
) -> None:
    """Pre-train an rRCM encoder from shards.

    ```sh
    rrcm pretrain imagenet/pretrain-b data.train=SHARDS output=RUN  # one process
    torchrun --nproc-per-node 8 -m rrcm_dist.cli.main pretrain imagenet/pretrain-b …  # several GPUs
    ```

    Run the same command again after any interruption: it goes on from its newest good checkpoint, exactly.
    """
    train_or_estimate("pretrain", recipe, overrides, dry_run, resume, allow, device, gpus, gpu)
