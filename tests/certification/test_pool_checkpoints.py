"""One of our checkpoints, certified by Ray workers that get its weights from the object store."""

import numpy as np
import pytest
import torch
from tiny import IMAGE_SIZE, finetune_recipe

from rrcm_dist.certification.images import images_of_tensor
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.certification.on_ray.pool import RayPool
from rrcm_dist.certification.run import certify
from rrcm_dist.certification.status import describe_status, read_status
from rrcm_dist.config.schema import CertifyConfig
from rrcm_dist.models.checkpoint_files import OwnMetadata
from rrcm_dist.models.rebuilding import network_of
from rrcm_dist.models.weights import write_weights

SIGMA = 0.25


def weights(folder):
    """A network with random weights that answers with several classes, as a fine-tuned checkpoint."""
    recipe = finetune_recipe(folder, folder)
    network = network_of(recipe)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    file = folder / "model.safetensors"
    write_weights(file, network.state_dict(), OwnMetadata("model", recipe).as_strings())
    return file


def recipe(folder, **changes):
    values = {
        "name": "test", "output": str(folder), "data": "unused", "image_size": IMAGE_SIZE, "n0": 20, "n": 300,
        "block": 50, "classifiers": [{"sigma": SIGMA, "checkpoint": str(folder.parent / "model.safetensors")}],
    }  # fmt: skip
    return CertifyConfig.model_validate(values | changes)


def stored(folder):
    with LedgerReader(folder / "ledger.sqlite") as reader:
        return {c.image: (c.selection.tolist(), c.estimation.tolist()) for c in reader.counts(SIGMA)}


@pytest.mark.slow
@pytest.mark.distributed
def test_workers_with_weights_from_the_object_store_count_as_one_process_does(tmp_path):
    weights(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    images = images_of_tensor(torch.from_numpy(pixels), [0] * 6, 10, recipe(tmp_path).images)
    certify(recipe(tmp_path / "alone"), images=images, show=False)
    pool = RayPool(workers=2, dashboard=False)
    certify(recipe(tmp_path / "pool"), images=images, show=False, pool=pool, audit_every=3)
    assert stored(tmp_path / "pool") == stored(tmp_path / "alone")
    assert any(sum(count > 0 for count in counts[1]) > 1 for counts in stored(tmp_path / "alone").values())
    status = read_status(tmp_path / "pool")
    assert (status.done, status.running) == (True, False)
    assert status.progress["blocks_audited"] >= 6 * 7 // 3
    assert "done" in describe_status(status)
