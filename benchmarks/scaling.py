"""Images/s of pre-training at 8 to 512 GPUs, predicted from one GPU's step and the network, and where scaling ends.

Strong: the batch stays 4096. Weak: it grows with the GPUs. One GPU's step is given by measurements at several numbers
of images (`--measured IMAGES:SECONDS …`, from `python -m benchmarks pretraining_step --device cuda --batch IMAGES`), to
which fixed + images × seconds is fitted; or by an assumed --mfu and --fixed-ms. Scaling ends where a GPU gives less
than 80 % of the most it gives among fewer GPUs. `--validate` predicts 2 gloo ranks of this CPU from one, and measures
them.

    python -m benchmarks scaling --measured 64:0.21 512:1.42
    python -m benchmarks scaling --validate
"""

import argparse
from pathlib import Path

from benchmarks.machine import markdown_table, report
from benchmarks.ranks import run_ranks
from benchmarks.scaling_model import LOSS_UTILISATION, Compute, Network, Prediction, predict
from benchmarks.scaling_plot import save_plot
from benchmarks.training_ranks import measure_ranks, small_recipe
from rrcm_dist.config.estimate import step_flops
from rrcm_dist.config.gpus import GPUS_PER_NODE, NETWORK_GB_S, Machine, gpu_of_kind
from rrcm_dist.config.load import load_recipe
from rrcm_dist.config.schema import PretrainConfig

LEAST_EFFICIENCY = 0.8
VALIDATION_ROUNDS = 3
"""Of one and two ranks, taken in turn; the fastest of each count."""
FIGURE = Path(__file__).parent / "figures" / "scaling.png"


def main() -> None:
    """Print the tables and save the plot, or validate the model on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="imagenet/pretrain-b")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--gpu", default="A800")
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--measured", nargs="+", type=_point, metavar="IMAGES:SECONDS", help="of one GPU's step")
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak, assumed without --measured")
    parser.add_argument("--fixed-ms", type=float, default=20.0, help="of a step, assumed without --measured")
    parser.add_argument("--network-gbit", type=float, default=8 * NETWORK_GB_S, help="InfiniBand per GPU, one way")
    parser.add_argument("--efficiency", type=float, default=0.8, help="share of links' bandwidth that is reached")
    parser.add_argument("--link-us", type=float, default=4.0, help="latency of a message within a node")
    parser.add_argument("--network-us", type=float, default=12.0, help="latency of a message between nodes")
    parser.add_argument("--reduce-overlap", type=float, default=0.0, help="share of the last backward pass")
    parser.add_argument("--images-per-gpu", type=int, default=128, help="where the batch grows with the GPUs")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    parser.add_argument("--validate", action="store_true", help="on this CPU, 2 gloo ranks")
    parser.add_argument("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    arguments = parser.parse_args()
    if arguments.validate:
        _validate(arguments.record)
    else:
        _predict(arguments)


def _point(text: str) -> tuple[int, float]:
    images, _, seconds = text.partition(":")
    return int(images), float(seconds)


def _predict(arguments: argparse.Namespace) -> None:
    machine = Machine(1, gpu_of_kind(arguments.gpu))
    recipe = _recipe(arguments, 4096)
    compute, origin = _compute(arguments, machine, recipe)
    network = Network(
        link_gb_s=arguments.efficiency * machine.gpu.link_gb_s,
        network_gb_s=arguments.efficiency * arguments.network_gbit / 8,
        link_latency=arguments.link_us * 1e-6,
        network_latency=arguments.network_us * 1e-6,
    )
    batch = recipe.training.batch

    def predicted(gpus: list[int], per_gpu: int | None) -> list[Prediction]:
        recipes = [_recipe(arguments, per_gpu * count if per_gpu else batch) for count in gpus]
        return [predict(r, n, compute, network, arguments.reduce_overlap) for r, n in zip(recipes, gpus, strict=True)]

    weak_title = f"{arguments.images_per_gpu} images per GPU, batch growing"
    series = {f"batch {batch}": None, weak_title: arguments.images_per_gpu}
    curves, parts = {}, [_assumptions(arguments, machine, origin, recipe)]
    for title, per_gpu in series.items():
        curves[title] = predicted([n for n in arguments.gpus if per_gpu or batch % n == 0], per_gpu)
        dense = predicted([n for n in range(8, 4097, 8) if per_gpu or batch % n == 0], per_gpu)
        parts += [f"**{title}**", _table(curves[title], dense), _end(dense)]
    save_plot(curves, arguments.figure, f"{recipe.name} on {arguments.gpu}, predicted")
    parts.append(f"Figure: {arguments.figure.name}.")
    report("scaling", f"Scaling model, {recipe.name} on {arguments.gpu}", "\n\n".join(parts), arguments.record)


def _recipe(arguments: argparse.Namespace, batch: int) -> PretrainConfig:
    changes = [f"training.batch={batch}", "data.streams=8", *arguments.set]
    recipe = load_recipe(arguments.recipe, changes, kind="pretrain")
    assert isinstance(recipe, PretrainConfig)
    return recipe


def _compute(arguments: argparse.Namespace, machine: Machine, recipe: PretrainConfig) -> tuple[Compute, str]:
    peak = machine.peak_tflops(recipe.training.precision) * 1e12
    loss_rate = LOSS_UTILISATION * machine.gpu.single_tflops * 1e12
    if not arguments.measured:
        origin = f"assumed: MFU {arguments.mfu:.0%}, {arguments.fixed_ms:g} ms fixed"
        return Compute(arguments.fixed_ms / 1e3, arguments.mfu * peak, loss_rate), origin
    per_image = step_flops(recipe) / recipe.training.batch
    fixed, slope = _line(arguments.measured)
    rate = per_image / slope
    points = ", ".join(f"{images} in {seconds:g} s" for images, seconds in arguments.measured)
    return Compute(
        fixed, rate, loss_rate
    ), f"measured: {points}; fitted MFU {rate / peak:.0%}, {1e3 * fixed:.0f} ms fixed"


def _line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Least squares: seconds at no images, not below 0, and seconds per image."""
    import numpy as np

    images, seconds = np.array(points, dtype=float).T
    if len(points) == 1:
        return 0.0, float(seconds[0] / images[0])
    slope, fixed = np.polyfit(images, seconds, 1)
    return max(0.0, float(fixed)), float(slope)


def _assumptions(arguments: argparse.Namespace, machine: Machine, origin: str, recipe: PretrainConfig) -> str:
    told = [
        f"One GPU's step {origin}.",
        f"NVLink {machine.gpu.link_gb_s:g} GB/s one way, {GPUS_PER_NODE} GPUs a node;",
        f"InfiniBand {arguments.network_gbit:g} Gbit/s per GPU; {arguments.efficiency:.0%} of both reached;",
        f"α {arguments.link_us:g} µs within a node, {arguments.network_us:g} µs between.",
        f"ZeRO stage {recipe.training.zero_stage}. Keys' gathers hide behind the online pass;",
        f"{arguments.reduce_overlap:.0%} of the last backward pass can hide the gradients' reduction",
        "(0 %: DeepSpeed's one bucket of 5e8 numbers is reduced when the pass is over).",
        "The loader keeps up; every GPU is alike; the network is nobody else's.",
    ]
    return "\n".join(told)


def _table(predictions: list[Prediction], dense: list[Prediction]) -> str:
    return markdown_table([_row(prediction, _efficiency(prediction, dense)) for prediction in predictions])


def _row(prediction: Prediction, efficiency: float) -> dict[str, str]:
    return {
        "GPUs": str(prediction.gpus),
        "batch": f"{prediction.batch:,}",
        "images per GPU": f"{prediction.batch / prediction.gpus:g}",
        "arithmetic": f"{1e3 * prediction.arithmetic:.1f} ms",
        "fixed": f"{1e3 * prediction.fixed:.1f} ms",
        "communication": f"{1e3 * prediction.communication:.1f} ms",
        "hidden": f"{1e3 * prediction.hidden:.2f} ms",
        "step": f"{1e3 * prediction.seconds:.0f} ms",
        "images/s": f"{prediction.images_per_second:,.0f}",
        "efficiency": f"{efficiency:.0%}",
    }


def _efficiency(prediction: Prediction, dense: list[Prediction]) -> float:
    """Images/s per GPU, as a share of the most among fewer GPUs (fewer may have to encode some images twice)."""
    fewer = [other for other in dense if other.gpus < prediction.gpus]
    most = max(other.images_per_second / other.gpus for other in [*fewer, prediction])
    return prediction.images_per_second / prediction.gpus / most


def _end(dense: list[Prediction]) -> str:
    """Where efficiency falls below the least, and for what reason."""
    for prediction in dense:
        efficiency = _efficiency(prediction, dense)
        if efficiency >= LEAST_EFFICIENCY:
            continue
        images = prediction.batch / prediction.gpus
        longest = max(prediction.exposed, key=lambda use: prediction.exposed[use])
        reason = f"communication, most of it {longest} ({1e3 * prediction.exposed[longest]:.1f} ms)"
        if prediction.fixed > prediction.communication:
            reason = f"too few images per GPU for the {1e3 * prediction.fixed:.0f} ms that do not shrink with them"
        where = (
            f"Below {LEAST_EFFICIENCY:.0%} from {prediction.gpus} GPUs on ({images:g} images each, {efficiency:.0%})"
        )
        return f"{where}: {reason}; of a step of {1e3 * prediction.seconds:.0f} ms."
    return f"Above {LEAST_EFFICIENCY:.0%} up to {dense[-1].gpus} GPUs."


def _validate(record: bool) -> None:
    """Two ranks predicted from one rank's step and this machine's all-reduce, beside two ranks measured."""
    rows = []
    latency, bandwidth = run_ranks("benchmarks.collective_speed", [], 2)[0]
    link = bandwidth / 1e9
    network = Network(link, link, latency, latency)
    for share in (8, 32):
        alone, both = small_recipe(share, zero_stage=1), small_recipe(2 * share, zero_stage=1)
        ones, twos = [], []
        for _ in range(VALIDATION_ROUNDS):
            ones.append(measure_ranks(alone, 1, steps=5)[0].seconds)
            twos.append(max(rank.seconds for rank in measure_ranks(both, 2, steps=5)))
        one, two = min(ones), min(twos)
        compute = Compute(0.0, step_flops(alone) / one, float("inf"))
        told = predict(both, 2, compute, network, reduce_overlap=0.0)
        rows.append(
            {
                "images per rank": str(share),
                "1 rank, measured": f"{1e3 * one:.0f} ms",
                "communication, predicted": f"{1e3 * told.communication:.0f} ms",
                "2 ranks, predicted": f"{told.images_per_second:.1f} images/s",
                "2 ranks, measured": f"{2 * share / two:.1f} images/s",
                "measured, predicted = 1": f"{2 * share / two / told.images_per_second:.2f}",
            }
        )
    note = f"Measured here: all-reduce of 2 gloo ranks {link:.2f} GB/s, α {1e6 * latency:.0f} µs. One thread a rank."
    report("scaling", "Scaling model against 2 ranks of this CPU", note + "\n\n" + markdown_table(rows), record)


if __name__ == "__main__":
    main()
