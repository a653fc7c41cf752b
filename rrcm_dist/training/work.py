"""The arithmetic of a run, for MFU and for curves over what a run has cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """FLOPs that the method needs of each step, over the global batch, and what came before the first one.

    Both follow from the recipe (and a teacher's architecture), not from ranks, micro-batches or restarts.
    """

    step_flops: float = 0.0
    flops_before: float = 0.0
    """FLOPs of the stages before."""
    samples_before: int = 0
    """Samples that the stages before have seen."""

    def __add__(self, other: "Work") -> "Work":
        """One beside the other."""
        return Work(
            self.step_flops + other.step_flops,
            self.flops_before + other.flops_before,
            self.samples_before + other.samples_before,
        )

    def flops(self, step: int) -> float:
        """FLOPs after so many steps, those of the stages before included."""
        return self.flops_before + step * self.step_flops

    def samples(self, step: int, batch: int) -> int:
        """Samples seen after so many steps, those of the stages before included."""
        return self.samples_before + step * batch
