"""The training sessions of each selection, which the LLM ranks: the authors', or those of this run's policies."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

import alkd_jax as alkd
from alkd_jax import maxmin, selection
from alkd_jax.data.readers import registry

from .methods import SELECTIONS
from .run import RunContext

_RELEASED_NAMES = {"Random": "random", "Easiest": "easiest", "Hardest": "hardest"}
"""Selection → the authors' name for it, where it differs."""


def released_selections(run: RunContext) -> dict[str, np.ndarray]:
    """Reads the authors' selections, cut to the run's budget.

    Returns:
        Selection → ids of its sessions.
    """
    source = registry.parse_source(run.settings.data)
    return {
        method: alkd.data.load_released_selection(
            source.path, source.name, _RELEASED_NAMES.get(method, method), dataset=run.dataset
        )[: run.settings.resolved_budget]
        for method in SELECTIONS
    }


def own_selections(run: RunContext, answerable: Bool[np.ndarray, " N"]) -> dict[str, np.ndarray]:
    """Selects training sessions by this run's difficulties and policies.

    Args:
        run: a run with difficulties and a policy.
        answerable: True for the training sessions that can be ranked.

    Returns:
        Selection → ids of its sessions.

    Raises:
        ValueError: with the run's ratios of answers the value of the game is negative, and the policy has a smaller
            support than the budget.
    """
    session_id, num = np.asarray(run.dataset.train.session_id), run.settings.resolved_budget
    value, support = (run.load_array("policy.npz", name).item() for name in ("value", "support_size"))
    if value < 0 and support < num:
        raise ValueError(
            f"--ratios is {run.settings.ratios}, for which the value of the game is {value:.3g} and its policy selects "
            f"{support} of {num} sessions; expected more effective answers, or fewer incorrect ones"
        )
    rank = jnp.asarray(run.load_array("difficulty.npz", "rank"))
    policies = {
        "Random": selection.random_policy(len(session_id)),
        "ALKDRec": jnp.asarray(run.load_array("policy.npz", "log_policy")),
        "RAD-BC": rad_bc_policy(run, rank),
    }
    rows = {
        method: selection.select(
            selection_key(run, method), jnp.where(jnp.asarray(answerable), policy, -jnp.inf), num=num, mesh=run.mesh
        )
        for method, policy in policies.items()
    }
    answerable_rows = np.flatnonzero(answerable)
    difficulty = jnp.asarray(run.load_array("difficulty.npz", "difficulty")[answerable_rows])
    rows["Easiest"] = answerable_rows[np.asarray(selection.easiest(difficulty, num))]
    rows["Hardest"] = answerable_rows[np.asarray(selection.hardest(difficulty, num))]
    return {method: session_id[np.asarray(rows[method])] for method in SELECTIONS}


def rad_bc_policy(run: RunContext, rank: Array) -> Float[Array, " N"]:
    """Returns the log-policy of RAD-BC's game with two classes: correct (effective or similar) and incorrect answers.

    Args:
        run: a run.
        rank: difficulty rank of every training session.
    """
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


def selection_key(run: RunContext, method: str) -> jax.Array:
    """Returns the random key of a selection."""
    return run.key(10 + SELECTIONS.index(method))
