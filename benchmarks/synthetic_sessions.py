"""Synthetic sessions with the sizes of the released data, and the FLOP of a training step and of ranking a session."""

import numpy as np

import alkd_jax as alkd

SIZES = {"ML": (7_393, 2_465, 8_475), "Games": (12_054, 4_018, 26_138)}
"""Number of training sessions, test sessions and items of the released data."""
LENGTHS = {
    "ML": (0, 0, 0, 0, 1_550, 1_088, 863, 646, 523, 482, 2_241),
    "Games": (0, 9, 231, 924, 4_351, 2_332, 1_314, 882, 573, 384, 1_054),
}
"""Number of training sessions of the released data that hold 0, 1, … 10 items."""
SMOKE = {"smoke": (300, 70, 200)}
BACKBONES = ("fpmc", "stamp", "attmix")


def cells(*, smoke: bool) -> list[tuple[str, str, int]]:
    """Backbone, data and width of every cell of the benchmarks of training and evaluation."""
    sizes, widths = (SMOKE, (10,)) if smoke else (SIZES, (10, 100))
    return [(backbone, data, dim) for dim in widths for data in sizes for backbone in BACKBONES]


def random_sessions(num_sessions: int, num_items: int, *, seed: int = 0, like: str = "ML") -> alkd.Sessions:
    """Sessions of random items with the lengths and the repetition of the released ones.

    The more often a batch repeats items and targets, the less there is to compute. Items are therefore sampled with a
    popularity for which a batch of 1,024 holds as many different items and targets as a released one, within a tenth.

    Args:
        num_sessions: number of sessions.
        num_items: V, size of the catalogue.
        seed: of the random numbers.
        like: name of the data whose lengths are used; any name but those of `LENGTHS` means ML.
    """
    rng = np.random.default_rng(seed)
    popularity = (np.arange(1, num_items + 1) + 300.0) ** -1.2
    lengths = np.array(LENGTHS.get(like, LENGTHS["ML"]))
    longest = len(lengths) - 1
    sampled = rng.choice(num_items, (num_sessions, longest + 1), p=popularity / popularity.sum()).astype(np.int32) + 1
    mask = np.arange(longest) < rng.choice(longest + 1, num_sessions, p=lengths / lengths.sum())[:, None]
    items = np.where(mask, sampled[:, :longest], alkd.PAD)
    return alkd.Sessions(items, mask, sampled[:, longest], np.arange(num_sessions, dtype=np.int32))


def encoder_flop(backbone: str, dim: int, *, length: int = 10, levels: int = 10) -> float:
    """FLOP of the matrix products that encode one session."""
    if backbone == "stamp":
        return 2.0 * (length + 2) * dim**2
    if backbone == "attmix":
        maps = levels * (levels + 1) / 2 + levels + 2 * length + 2
        return 2.0 * maps * dim**2 + 2.0 * levels * length * dim
    return 0.0


def step_flop(backbone: str, dim: int, batch: int) -> float:
    """FLOP of the matrix products of a training step: in-batch scores, encoder, and twice that for the gradient."""
    return 3 * (2.0 * batch * batch * dim + batch * encoder_flop(backbone, dim))


def rank_flop(backbone: str, dim: int, num_items: int) -> float:
    """FLOP of the matrix products that rank one session's target."""
    return 2.0 * num_items * dim + encoder_flop(backbone, dim)
