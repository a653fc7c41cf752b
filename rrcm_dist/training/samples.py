"""Which samples a run trains on, and in which order."""

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.data.index import DatasetIndex, load_index
from rrcm_dist.data.order import SampleOrder
from rrcm_dist.distributed.world import World


def dealt_samples(recipe: PretrainConfig | FinetuneConfig, world: World) -> tuple[DatasetIndex, SampleOrder]:
    """The training shards and their order; `InvalidInput` where batch, streams, ranks or samples do not fit."""
    index = load_index(recipe.data.train)
    samples = [shard.samples for shard in index.shards]
    data = recipe.data
    order = SampleOrder(samples, recipe.training.batch, data.streams, recipe.seed, data.shuffle_window)
    order.rank_rows(world.rank, world.size)
    return index, order
