"""The selections by name: how each chooses the training sessions that the LLM ranks."""

import functools
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import alkd_jax as alkd
from alkd_jax import maxmin, selection
from alkd_jax.data.readers import registry
from alkd_jax.registry import Registry, accepts, parameter_names

from .console import stage_bar

if TYPE_CHECKING:
    from .run import RunContext
    from .settings import Settings

SelectRows: TypeAlias = Callable[["RunContext", Bool[np.ndarray, " N"]], Int[np.ndarray, " num"]]
"""Function of a run with difficulties and a policy, and of a mask of the training sessions that can be ranked; it
returns the rows of the selected ones."""

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
    return solve_rad_bc(run.settings, jnp.asarray(run.load_array("difficulty.npz", "rank"))).log_policy


def solve_game(settings: "Settings", rank: Int[Array, " N"]) -> tuple[maxmin.Solution, float]:
    """Solves the max-min game over N sessions (released mode: by the paper's closed form).

    Args:
        settings: of the run.
        rank: of the sessions by difficulty, from 1, the hardest.

    Returns:
        The solution, and the logarithm of the unit of all gains, which the solution leaves out.
    """
    num_effective, num_similar, _ = selection.class_counts(len(rank), settings.ratios)
    gains = selection.gains(rank)
    solver = functools.partial(maxmin.closed_form, drop_last=True) if settings.mode == "released" else maxmin.solve
    solution = solver(
        gains.effective,
        gains.similar,
        gains.incorrect,
        num_effective=num_effective,
        num_similar=num_similar,
        log_gains=True,
    )
    return solution, gains.log_scale


def solve_rad_bc(settings: "Settings", rank: Int[Array, " N"]) -> maxmin.Solution:
    """Solves RAD-BC's game: correct answers, effective or similar, and incorrect ones; see :func:`solve_game`."""
    num_effective, num_similar, _ = selection.class_counts(len(rank), settings.ratios)
    gains = selection.gains(rank)
    return maxmin.rad_bc(
        gains.effective,
        gains.incorrect,
        num_correct=num_effective + num_similar,
        log_gains=True,
        drop_last=settings.mode == "released",
    )


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


SELECTIONS = Registry[SelectRows](
    "selection",
    {
        "Random": functools.partial(sampled, policy=random_policy, purpose=10),
        "ALKDRec": functools.partial(sampled, policy=max_min_policy, purpose=11),
        "RAD-BC": functools.partial(sampled, policy=rad_bc_policy, purpose=12),
        "Easiest": functools.partial(by_difficulty, choose=selection.easiest),
        "Hardest": functools.partial(by_difficulty, choose=selection.hardest),
    },
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
        for name in SELECTIONS
    }


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
