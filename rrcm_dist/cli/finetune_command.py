"""`rrcm finetune`."""

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
    """Fine-tune an encoder and a linear head for one noise level σ.

    ```sh
    rrcm finetune imagenet/finetune-b-sigma0.5 start_from=RUN data.train=SHARDS output=RUN2  # one process
    torchrun --nproc-per-node 8 -m rrcm_dist.cli.main finetune imagenet/finetune-b-sigma0.5 …  # several GPUs
    ```

    start_from is a pre-training run, one of its checkpoints, or a weights file; null trains from scratch.
    """
    train_or_estimate("finetune", recipe, overrides, dry_run, resume, allow, device, gpus, gpu)
