"""What the processes of the check of nodes are told: where things are and what is asked of a node."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rrcm_dist.config.keys import TrainingRecipe
from rrcm_dist.config.load import load_recipe


@dataclass(frozen=True)
class NodeTask:
    """The same for every node."""

    kind: str
    recipe_file: str
    run: str
    """The run folder, absolute."""
    folder: str
    """Of this preflight; `token` lies in it, put there by the first node."""
    token: str
    addresses: dict[str, str]
    """Of every node, by name; the first one leads."""
    port: int
    """On which nodes visit each other: the one that the ranks will meet at."""
    ranks_per_node: int
    cores: int
    """Asked for on each node."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @property
    def first(self) -> str:
        """The node that the others are compared with."""
        return next(iter(self.addresses))

    @property
    def token_file(self) -> Path:
        """Whoever sees it with the right content sees the run's folder."""
        return Path(self.folder) / "token"

    def recipe(self) -> TrainingRecipe:
        """Read on the node itself."""
        loaded = load_recipe(self.recipe_file, (), self.kind)
        assert isinstance(loaded, TrainingRecipe)
        return loaded
