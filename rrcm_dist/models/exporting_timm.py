"""An encoder or classifier as a folder in Hugging Face's layout that timm alone loads.

At one noise level t our encoder is timm's VisionTransformer with one register token: the register is the time token of
t, and the input scaling 1/sqrt(t² + σ_data²) goes into the patch embedding's weight. Both put tokens as [class, time or
register, patches], add a position to each of them, and take the class token in the end.

    config.json         timm's: architecture, its arguments, preprocessing, names of the classes; and where it is from
    model.safetensors   the weights under timm's names
    README.md           a model card
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrcm_dist.config.schema import FinetuneConfig, PretrainConfig
from rrcm_dist.errors import InvalidInput, RunFailure
from rrcm_dist.files import whole_folder, write_json, write_text
from rrcm_dist.models.checkpoint_files import FORMAT
from rrcm_dist.models.rebuilding import trained_network
from rrcm_dist.models.representation import Representation
from rrcm_dist.models.rrcm import FinetuningNetwork, PretrainingNetwork
from rrcm_dist.models.weights import write_weights
from rrcm_dist.noise import conditioning_level, input_scale, sinusoidal_embedding, time_condition
from rrcm_dist.progress import progress_bar
from rrcm_dist.torchvision_compat import allow_cpu_torch

ARCHITECTURE = "vit_base_patch16_clip_224"
"""timm's registered transformer whose LayerNorms have torch's ε, 1e-5, as ours; every size is given beside it."""
LARGEST_DIFFERENCE = 1e-5
"""Of timm's outputs from the network's, relative to the largest output."""
CHECKED_IMAGES = 3


def export_timm(
    file: Path, folder: Path, sigma: float, class_names: Sequence[str] | None = None, encoder_only: bool = False
) -> None:
    """Write the network at noise σ as `folder`, which must not exist: `timm.create_model("local-dir:FOLDER", …)`.

    What it takes are [-1, 1] images (timm's preprocessing with mean and standard deviation 0.5) plus noise of standard
    deviation 2σ; it gives representations, or the logits of a fine-tuned network unless `encoder_only`. It is loaded
    by timm, strictly, and compared with the network before it appears.

    Raises `InvalidInput` where the file is not ours, the folder exists or there are not as many names as classes, and
    `RunFailure` where timm's numbers differ.
    """
    if folder.exists():
        raise InvalidInput(f"{folder} exists already: name another --output, or move it away")
    trained, recipe = trained_network(file)
    classes = recipe.classes if isinstance(recipe, FinetuneConfig) and not encoder_only else 0
    if class_names is not None and len(class_names) != classes:
        raise InvalidInput(f"{len(class_names)} names of classes do not go with a network of {classes} classes")
    level = conditioning_level(recipe.noise, sigma)
    with whole_folder(folder) as aside, progress_bar(f"exporting {folder.name}", 2, unit="steps") as bar:
        write_json(aside / "config.json", _config(trained, recipe, sigma, level, classes, class_names))
        write_weights(aside / "model.safetensors", _weights(trained, level, classes > 0), {"format": "pt"})
        write_text(aside / "README.md", _card(recipe, file, sigma, classes))
        bar.advance(1, "comparing")
        _compare(trained, aside, level, classes > 0)
        bar.advance()


def _normalizes(trained: PretrainingNetwork | FinetuningNetwork) -> bool:
    return trained.final_norm if isinstance(trained, FinetuningNetwork) else True


def _config(
    trained: PretrainingNetwork | FinetuningNetwork,
    recipe: PretrainConfig | FinetuneConfig,
    sigma: float,
    level: float,
    classes: int,
    class_names: Sequence[str] | None,
) -> dict[str, Any]:
    """config.json as timm reads it; `rrcm` in it is for people."""
    encoder = recipe.encoder
    arguments = {
        "img_size": encoder.image_size,
        "patch_size": encoder.patch,
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.heads,
        "mlp_ratio": encoder.mlp_ratio,
        "qkv_bias": False,
        "class_token": True,
        "reg_tokens": 1,
        "no_embed_class": False,
        "pre_norm": False,
        "final_norm": _normalizes(trained),
    }
    preprocessing = {
        "input_size": [3, encoder.image_size, encoder.image_size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return {
        "architecture": ARCHITECTURE,
        "num_classes": classes,
        "num_features": encoder.width,
        "global_pool": "token",
        **({"label_names": list(class_names)} if class_names is not None else {}),
        "model_args": arguments,
        "pretrained_cfg": {**preprocessing, "num_classes": classes, "pool_size": None, "tag": "rrcm"},
        "rrcm": {"format": FORMAT, "sigma": sigma, "noise_level": level, "recipe": recipe.model_dump(mode="json")},
    }


def _weights(trained: PretrainingNetwork | FinetuningNetwork, level: float, with_head: bool) -> dict[str, Tensor]:
    """Tensors under timm's names: ours, but for the time token and the scaled patch embedding."""
    encoder = trained.encoder
    t = torch.tensor([level])
    weights = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("norm.")}
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"] * input_scale(t, encoder.sigma_data)
    weights["reg_token"] = sinusoidal_embedding(time_condition(t), encoder.config.width)[None]
    if _normalizes(trained):
        weights |= {f"norm.{name}": tensor for name, tensor in encoder.norm.state_dict().items()}
    if with_head:
        assert isinstance(trained, FinetuningNetwork)
        weights |= {f"head.{name}": tensor for name, tensor in trained.head.state_dict().items()}
    return weights


@torch.no_grad()
def _compare(trained: PretrainingNetwork | FinetuningNetwork, folder: Path, level: float, with_head: bool) -> None:
    """Raise `RunFailure` unless timm loads the folder and gives the network's numbers."""
    allow_cpu_torch()
    import timm

    size = trained.encoder.config.image_size
    noisy = torch.randn(CHECKED_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    t = torch.full((CHECKED_IMAGES,), level)
    module = trained if with_head else Representation(trained)
    try:
        theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        expected, actual = module(noisy, t), theirs(noisy)
    except (RuntimeError, TypeError, KeyError) as error:
        raise RunFailure(
            f"timm {timm.__version__} cannot load what was exported ({error}); nothing was kept"
        ) from error
    difference = float((actual - expected).abs().max() / expected.abs().max())
    if not difference <= LARGEST_DIFFERENCE:
        raise RunFailure(
            f"timm {timm.__version__} makes of the exported weights numbers that differ by {difference:.1e} from the "
            "network's; nothing was kept: export as safetensors, or with another timm"
        )


def _card(recipe: PretrainConfig | FinetuneConfig, file: Path, sigma: float, classes: int) -> str:
    task = "image-classification" if classes else "image-feature-extraction"
    gives = f"logits of {classes} classes" if classes else f"representations of width {recipe.encoder.width}"
    size = recipe.encoder.image_size
    noise = f"plus Gaussian noise of standard deviation {2 * sigma:g} (σ = {sigma:g} on [0, 1] pixels)"
    takes = f"images of {size}×{size} pixels in [-1, 1]" + (f", {noise}" if sigma else ", clean")
    return f"""---
library_name: timm
pipeline_tag: {task}
tags:
- {task}
- timm
- rrcm
- randomized-smoothing
---
# {recipe.name}

A vision transformer of rRCM (Robust Representation Consistency Model, Lei et al., ICLR 2025) at noise σ = {sigma:g}.
The time token of that level is its register token. It takes {takes}, and gives {gives}.

```python
import timm, torch
model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()   # this folder; or hf-hub:OWNER/NAME
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
images = transform(image)[None]
outputs = model(images + {2 * sigma:g} * torch.randn_like(images))
```

Exported from the {recipe.kind} checkpoint `{file.name}` of the run `{recipe.name}`; its recipe is in config.json.
"""
