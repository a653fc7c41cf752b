"""Which samples a run trains on, in which order, and for how long."""

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.parts import DataConfig
from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.data.index import DatasetIndex, load_index
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.data.stores import StoreSettings
from rrcm_dist.distributed.world import World
from rrcm_dist.errors import InvalidInput


def named_index(key: str, place: str, data: DataConfig) -> DatasetIndex:
    """The index of the folder or URL that a key of the recipe names; an `InvalidInput` says which key."""
    try:
        return load_index(place, StoreSettings.of(data))
    except InvalidInput as error:
        raise InvalidInput(f"{key}: {error}") from error


def dealt_samples(recipe: TrainingRecipe, world: World) -> tuple[DatasetIndex, SampleOrder]:
    """The training shards and their order; `InvalidInput` where batch, streams, ranks or samples do not fit."""
    index = named_index("data.train", recipe.data.train, recipe.data)
    samples = [shard.samples for shard in index.shards]
    data = recipe.data
    order = SampleOrder(samples, recipe.training.batch, data.streams, recipe.seed, data.shuffle_window)
    order.rank_rows(world.rank, world.size)
    return index, order


def steps_in_all_and_of_warmup(recipe: PretrainConfig | FinetuneConfig, order: SampleOrder) -> tuple[int, int]:
    """Steps of the whole run and of its warm-up; `InvalidInput` where the warm-up would not end within the run."""
    epoch = order.steps_per_epoch
    total = recipe.training.steps or (recipe.training.epochs or 0) * epoch
    warmup = recipe.optimizer.warmup * (epoch if isinstance(recipe, FinetuneConfig) else 1)
    if total <= warmup:
        raise InvalidInput(
            f"optimizer.warmup {recipe.optimizer.warmup} makes {warmup} steps of warm-up, and the whole run has "
            f"{total} ({epoch} an epoch): lower optimizer.warmup or raise training.steps or training.epochs"
        )
    return total, warmup
