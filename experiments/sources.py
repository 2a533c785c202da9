"""Where data come from: `synthetic`, `synthetic:SEED` or `released:PATH:NAME` on the command line."""

import dataclasses

import alkd_jax as alkd


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed `--data` argument.

    Attributes:
        kind: "synthetic" or "released".
        path: folder of the released files; empty for the built-in world.
        name: "ML" or "Games"; "synthetic" for the built-in world.
        seed: of the built-in world.
    """

    kind: str
    path: str = ""
    name: str = "synthetic"
    seed: int = 0

    def load(self) -> alkd.Dataset:
        """Reads or makes the dataset."""
        if self.kind == "synthetic":
            return alkd.data.synthetic(seed=self.seed)
        return alkd.data.load_released(self.path, self.name)


def parse_source(text: str) -> Source:
    """Parses a `--data` argument.

    Raises:
        ValueError: it has none of the known forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "synthetic" and (not rest or rest.isdigit()):
        return Source("synthetic", seed=int(rest or 0))
    path, _, name = rest.rpartition(":")
    if kind == "released" and path and name:
        return Source("released", path, name)
    raise ValueError(f"--data is {text!r}; expected synthetic, synthetic:SEED or released:PATH:ML (or :Games)")
