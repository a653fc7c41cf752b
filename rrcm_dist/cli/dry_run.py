"""What `--dry-run` does, for every command that has it."""

from pathlib import Path

import typer

from rrcm_dist.config.schema import CertifyConfig, FinetuneConfig, PretrainConfig


def show_costs(recipe: PretrainConfig | FinetuneConfig | CertifyConfig, gpus: int, gpu: str) -> None:
    """Print the resolved recipe and its costs for the samples of its shards, where they are here."""
    from rrcm_dist.config.describe import describe

    shards = recipe.data if isinstance(recipe, CertifyConfig) else recipe.data.train
    typer.echo(describe(recipe, gpus, gpu, _samples(Path(shards))))


def _samples(folder: Path) -> int | None:
    from rrcm_dist.data.index import INDEX_FILE, read_header

    return read_header(folder)["samples"] if (folder / INDEX_FILE).exists() else None
