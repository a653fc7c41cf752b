"""The trainings of a recipe, one after the other: those that additions ask for, then the one that the recipe names."""

import gc
from collections.abc import Iterator, Sequence

import torch

from rrcm_dist.config.ibp import IbpConfig
from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.schema import PretrainConfig
from rrcm_dist.distributed.world import World
from rrcm_dist.training.loop import Training
from rrcm_dist.training.run_folder import refuse_other_recipe


def stages_of(recipe: TrainingRecipe, world: World, allow: Sequence[str] = ()) -> Iterator[Training]:
    """Each stage, put together when the one before is over; the last is the recipe's own.

    Who goes through them lets go of each before asking for the next: its networks would take memory beside those.

    Raises `InvalidInput` for what cannot be, before anything of that stage is trained; for a folder of another run, but
    for the keys of `allow`, and for what additions or the main run cannot do, before any stage is.
    """
    refuse_other_recipe(recipe, allow)
    if isinstance(recipe, PretrainConfig):
        from rrcm_dist.training.additions import additions_of
        from rrcm_dist.training.pretraining import check_additions, prepare_pretraining

        check_additions(recipe, world)
        for addition in additions_of(recipe):
            before = addition.stage_before(recipe, world)
            if before is not None:
                yield before
                del before
                _free_memory(world)
        yield prepare_pretraining(recipe, world)
    elif isinstance(recipe, IbpConfig):
        from rrcm_dist.training.ibp import prepare_ibp

        yield prepare_ibp(recipe, world)
    else:
        from rrcm_dist.training.finetuning import prepare_finetuning

        yield prepare_finetuning(recipe, world)


def _free_memory(world: World) -> None:
    """Give back what nobody holds any more: modules with hooks are freed by the collector of cycles alone."""
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
