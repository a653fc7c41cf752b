"""The trainings of a recipe, one after the other: those that additions ask for, then the one that the recipe names."""

from collections.abc import Iterator

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.training.loop import Training


def stages_of(recipe: PretrainConfig | FinetuneConfig, world: World) -> Iterator[Training]:
    """Each stage, put together when the one before is over; the last is the recipe's own.

    Raises `InvalidInput` for what cannot be, before anything of that stage is trained.
    """
    if isinstance(recipe, PretrainConfig):
        from rrcm_dist.training.additions import additions_of
        from rrcm_dist.training.pretraining import prepare_pretraining

        for addition in additions_of(recipe):
            before = addition.stage_before(recipe, world)
            if before is not None:
                yield before
        yield prepare_pretraining(recipe, world)
    else:
        from rrcm_dist.training.finetuning import prepare_finetuning

        yield prepare_finetuning(recipe, world)
