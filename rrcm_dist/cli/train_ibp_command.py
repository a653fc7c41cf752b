"""`rrcm train-ibp`."""

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
    """Train a classifier whose answers can be verified in an ℓ∞ ball, by interval bound propagation.

    ```sh
    rrcm train-ibp cifar10/ibp-cnn7 data.train=SHARDS data.held_out=SHARDS2 output=RUN  # one process
    torchrun --nproc-per-node 8 -m rrcm_dist.cli.main train-ibp cifar10/ibp-cnn7 …      # several GPUs
    ```

    Its certificates are deterministic, of an ℓ∞ radius: another kind than those of `rrcm certify`.
    """
    train_or_estimate("train-ibp", recipe, overrides, dry_run, resume, allow, device, gpus, gpu)
