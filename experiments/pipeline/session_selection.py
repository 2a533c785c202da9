"""Which training sessions each selection asks about."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

import alkd_jax as alkd
from alkd_jax import maxmin, selection

from .methods import SELECTIONS
from .run import OpenRun
from .sources import parse_source

_FILES = {"Random": "random", "Easiest": "easiest", "Hardest": "hardest"}
"""The authors' file names, where they are not the method's."""


def released_choices(run: OpenRun) -> dict[str, np.ndarray]:
    """The training sessions the authors chose, as many as the run asks about."""
    source = parse_source(run.settings.data)
    return {
        method: alkd.data.load_released_selection(
            source.path, source.name, _FILES.get(method, method), dataset=run.dataset
        )[: run.settings.num_asked]
        for method in SELECTIONS
    }


def own_choices(run: OpenRun, can_be_asked: Bool[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """The training sessions chosen by this run's difficulty and policy, among those that can be asked about.

    Raises:
        ValueError: with these ratios of answers the game is lost, so that its policy asks about as good as nobody.
    """
    session_id, num = np.asarray(run.dataset.train.session_id), run.settings.num_asked
    value, support = (run.array("policy.npz", name).item() for name in ("value", "support_size"))
    if value < 0 and support < num:
        raise ValueError(
            f"--ratios are {run.settings.ratios}: the game is lost (value {value:.3g}), its policy asks about "
            f"{support} of {num} sessions; expected effective answers and half the similar ones to outweigh half the "
            "incorrect ones"
        )
    rank = jnp.asarray(run.array("difficulty.npz", "rank"))
    policies = {
        "Random": selection.random_policy(len(session_id)),
        "ALKDRec": jnp.asarray(run.array("policy.npz", "log_policy")),
        "RAD-BC": rad_bc_policy(run, rank),
    }
    can_be_drawn = {name: jnp.where(jnp.asarray(can_be_asked), policy, -jnp.inf) for name, policy in policies.items()}
    chosen = {
        method: selection.select(draw_key(run, method), policy, num=num, mesh=run.mesh)
        for method, policy in can_be_drawn.items()
    }
    askable = np.flatnonzero(can_be_asked)
    difficulty = jnp.asarray(run.array("difficulty.npz", "difficulty")[askable])
    chosen["Easiest"] = askable[np.asarray(selection.easiest(difficulty, num))]
    chosen["Hardest"] = askable[np.asarray(selection.hardest(difficulty, num))]
    return {method: session_id[np.asarray(chosen[method])] for method in SELECTIONS}


def rad_bc_policy(run: OpenRun, rank: Array) -> Float[Array, " N"]:
    """The policy of the two-class game, whose correct sessions are the effective and the similar together."""
    num_effective, num_similar, _ = selection.class_counts(len(rank), run.settings.ratios)
    gains = selection.gains(rank)
    solution = maxmin.rad_bc(
        gains.effective,
        gains.incorrect,
        num_correct=num_effective + num_similar,
        log_gains=True,
        drop_last=run.released,
    )
    return solution.log_policy


def draw_key(run: OpenRun, method: str) -> jax.Array:
    """The random key of a selection's draw."""
    return run.key(10 + SELECTIONS.index(method))
