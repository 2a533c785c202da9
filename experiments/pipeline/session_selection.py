"""The selections by name: how each chooses the training sessions that the LLM ranks."""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import alkd_jax as alkd
from alkd_jax import selection
from alkd_jax.data.readers import registry
from alkd_jax.registry import Registry, accepts, parameter_names

from . import games
from .active_selections import ACTIVE_SELECTIONS, SelectRows
from .console import stage_bar

if TYPE_CHECKING:
    from .run import RunContext
    from .settings import Settings

_RELEASED_NAMES = {"Random": "random", "Easiest": "easiest", "Hardest": "hardest"}
"""Selection → the authors' name for it, where it differs."""


def sampled(
    run: "RunContext",
    answerable: Bool[np.ndarray, " N"],
    *,
    policy: Callable[["RunContext"], Float[Array, " N"]],
    purpose: int,
) -> Int[np.ndarray, " num"]:
    """Samples sessions from a log-policy, with the random key of a purpose."""
    log_policy = jnp.where(jnp.asarray(answerable), policy(run), -jnp.inf)
    return np.asarray(selection.select(run.key(purpose), log_policy, num=run.settings.resolved_budget, mesh=run.mesh))


def random_policy(run: "RunContext") -> Float[Array, " N"]:
    """Returns the uniform log-policy."""
    return selection.random_policy(len(run.dataset.train))


def max_min_policy(run: "RunContext") -> Float[Array, " N"]:
    """Returns the log-policy of the run's game."""
    return jnp.asarray(run.load_array("policy.npz", "log_policy"))


def rad_bc_policy(run: "RunContext") -> Float[Array, " N"]:
    """Returns the log-policy of RAD-BC's game."""
    return games.solve_rad_bc(run.settings, jnp.asarray(run.load_array("difficulty.npz", "rank"))).log_policy


def by_difficulty(
    run: "RunContext", answerable: Bool[np.ndarray, " N"], *, choose: Callable[..., Int[Array, " num"]]
) -> Int[np.ndarray, " num"]:
    """Chooses the easiest or the hardest sessions."""
    rows = np.flatnonzero(answerable)
    difficulty = jnp.asarray(run.load_array("difficulty.npz", "difficulty")[rows])
    return rows[np.asarray(choose(difficulty, run.settings.resolved_budget))]


def outside(
    run: "RunContext", answerable: Bool[np.ndarray, " N"], *, name: str, select: selection.Selection
) -> Int[np.ndarray, " num"]:
    """Selects with a user's function, see :class:`alkd_jax.selection.Selection`.

    Args:
        run: a run with difficulties.
        answerable: True for the training sessions that can be ranked.
        name: of the function.
        select: the function.

    Raises:
        ValueError: the function does not return the indices of distinct sessions, as many as the budget.
    """
    rows, num = np.flatnonzero(answerable), run.settings.resolved_budget
    difficulty = run.load_array("difficulty.npz", "difficulty")[rows]
    key = run.key(zlib.crc32(f"selection {name}".encode()))
    chosen = np.asarray(select(key, run.dataset.train.take(rows), difficulty, num=num))
    is_index = chosen.shape == (num,) and np.issubdtype(chosen.dtype, np.integer)
    if not is_index or len(set(chosen.tolist()) & set(range(len(rows)))) != num:
        found = f"{chosen.dtype}{list(chosen.shape)}"
        raise ValueError(f"{name} selected {found}; expected {num} distinct indices from 0 to {len(rows) - 1}")
    return rows[chosen]


def _adopt(name: str, found: Any) -> SelectRows | None:
    """Returns the selection of a user's function with a parameter ``num``."""
    is_selection = "num" in parameter_names(found) and accepts(found, 3, "num")
    return functools.partial(outside, name=name, select=found) if is_selection else None


PAPER_SELECTIONS: Mapping[str, SelectRows] = {
    "Random": functools.partial(sampled, policy=random_policy, purpose=10),
    "ALKDRec": functools.partial(sampled, policy=max_min_policy, purpose=11),
    "RAD-BC": functools.partial(sampled, policy=rad_bc_policy, purpose=12),
    "Easiest": functools.partial(by_difficulty, choose=selection.easiest),
    "Hardest": functools.partial(by_difficulty, choose=selection.hardest),
}
"""Name → selection of the paper; each run makes all of them."""

SELECTIONS = Registry[SelectRows](
    "selection",
    {**PAPER_SELECTIONS, **ACTIVE_SELECTIONS},
    "select(key, sessions, difficulty, *, num)",
    _adopt,
)
"""Name → selection. The student of the method of this name is distilled from the lists of these sessions."""


def released_selections(settings: "Settings", dataset: alkd.Dataset) -> dict[str, np.ndarray]:
    """Reads the authors' selections, cut to the run's budget.

    Returns:
        Selection → ids of its sessions.
    """
    source = registry.parse_source(settings.data)
    return {
        name: alkd.data.load_released_selection(
            source.path, source.name, _RELEASED_NAMES.get(name, name), dataset=dataset
        )[: settings.resolved_budget]
        for name in PAPER_SELECTIONS
    }


def made_by_the_run(needed: tuple[str, ...], *, is_released: bool) -> tuple[str, ...]:
    """Returns the selections that a run makes: all of the paper's, unless the authors' are read, and others as needed.

    Args:
        needed: the selections that a method of the run needs.
        is_released: whether the paper's are read from the authors' files.
    """
    others = tuple(name for name in needed if name not in PAPER_SELECTIONS)
    return others if is_released else (*PAPER_SELECTIONS, *others)


def own_selections(
    run: "RunContext", answerable: Bool[np.ndarray, " N"], names: tuple[str, ...], needed: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Selects training sessions by this run's difficulties and policies.

    Args:
        run: a run with difficulties and a policy.
        answerable: True for the training sessions that can be ranked.
        names: of the selections.
        needed: those of them that a method of the run needs.

    Returns:
        Selection → ids of its sessions. A selection that is not needed is left out where it cannot be made, since it
        has too few sessions for the budget.
    """
    session_id, chosen = np.asarray(run.dataset.train.session_id), {}
    with stage_bar("selections", total=len(names)) as bar:
        for number, name in enumerate(names):
            bar.update(number, status=name)
            try:
                chosen[name] = session_id[SELECTIONS.find(name)(run, answerable)]
            except ValueError:
                if name in needed:
                    raise
    return chosen
