"""A classifier of ours computes in the precision that certification asks for."""

import pytest
import torch
from released_files import FINETUNE, recipe_file, released_finetuned, saved

from rrcm_dist.certification.workers.classifiers import build_classifier
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import ClassifierConfig
from rrcm_dist.models.importing import import_weights

CPU = torch.device("cpu")


@pytest.mark.parametrize("outer", [False, True])
def test_bf16_is_computed_in_bf16_and_fp32_in_fp32_whatever_surrounds_them(tmp_path, outer):
    recipe = load_recipe(recipe_file(tmp_path, FINETUNE), kind="finetune")
    file = tmp_path / "model.safetensors"
    import_weights(saved(released_finetuned(), tmp_path / "tuned.pt"), recipe, file)
    config = ClassifierConfig(sigma=0.5, checkpoint=str(file))
    noisy = 0.5 + 0.5 * torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    types, logits = {}, {}
    for precision in ("fp32", "bf16"):
        classifier = build_classifier(config, "auto", CPU, precision)
        block = classifier.network.encoder.blocks[0]
        block.attn.proj.register_forward_hook(lambda *call, to=precision: types.update({to: call[-1].dtype}))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=outer):
            logits[precision] = classifier(noisy)
    assert types == {"fp32": torch.float32, "bf16": torch.bfloat16}
    assert logits["bf16"].dtype == torch.float32
    difference = (logits["bf16"] - logits["fp32"]).norm() / logits["fp32"].norm()
    assert 0 < difference < 0.03  # bf16 rounds to 0.004; measured 0.008
