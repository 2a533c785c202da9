"""Where data come from on the command line: `synthetic[:SEED]`, `released:PATH:NAME` or `prepared:PATH`."""

import dataclasses

import alkd_jax as alkd


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed `--data` argument.

    Attributes:
        kind: "synthetic", "released" or "prepared".
        path: folder of the released files, or of the prepared data set; empty for the built-in world.
        name: "ML" or "Games"; "synthetic" for the built-in world, "prepared" for a prepared data set.
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
        if self.kind == "prepared":
            return alkd.data.load_prepared(self.path)
        return alkd.data.load_released(self.path, self.name)


def parse_source(text: str) -> Source:
    """Parses a `--data` argument.

    Raises:
        ValueError: it has none of the known forms.
    """
    kind, _, rest = text.partition(":")
    if kind == "synthetic" and (not rest or rest.isdigit()):
        return Source("synthetic", seed=int(rest or 0))
    if kind == "prepared" and rest:
        return Source("prepared", rest, "prepared")
    path, _, name = rest.rpartition(":")
    if kind == "released" and path and name:
        return Source("released", path, name)
    raise ValueError(
        f"--data is {text!r}; expected synthetic, synthetic:SEED, released:PATH:ML (or :Games) or prepared:PATH"
    )
