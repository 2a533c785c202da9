"""Ordinary active learning: selections by the student's uncertainty, by coverage, in rounds, and by a measured game."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax import maxmin, selection

from . import games
from .answers import answers_at_once
from .distill_methods import fine_tuned
from .student_scores import NUM_CANDIDATES, student_scores

if TYPE_CHECKING:
    from .run import RunContext
    from .settings import Settings

SelectRows: TypeAlias = Callable[["RunContext", Bool[np.ndarray, " N"]], Int[np.ndarray, " num"]]
"""Function of a run with difficulties and a policy, and of a mask of the training sessions that can be ranked; it
returns the rows of the selected ones."""

_ENTROPY, _MARGIN = selection.UNCERTAINTIES
_MEASURES = {_ENTROPY: selection.entropy, _MARGIN: selection.margin}


def most_uncertain(run: "RunContext", answerable: Bool[np.ndarray, " N"], *, measure: str) -> Int[np.ndarray, " num"]:
    """Selects the sessions of the largest uncertainty, ties to the lower row."""
    rows = np.flatnonzero(answerable)
    uncertainty = _MEASURES[measure](student_scores(run, rows)[1])
    return rows[np.asarray(selection.hardest(uncertainty, run.settings.resolved_budget))]


def by_acceptance(run: "RunContext", answerable: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " num"]:
    """Visits sessions in random order, and accepts each with the probability that its uncertainty is."""
    rows = np.flatnonzero(answerable)
    uncertainty = _MEASURES[run.settings.uncertainty](student_scores(run, rows)[1])
    num = run.settings.resolved_budget
    return rows[np.asarray(selection.randomized_acceptance(run.key(40), uncertainty, num=num))]


def by_k_center(run: "RunContext", answerable: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " num"]:
    """Selects one session after another that is farthest from those before, by the student's vectors."""
    rows = np.flatnonzero(answerable)
    vectors = student_scores(run, rows)[0]
    return rows[np.asarray(selection.k_center(run.key(41), vectors, num=run.settings.resolved_budget))]


def by_gradients(run: "RunContext", answerable: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " num"]:
    """Samples sessions by k-means++ on the student's gradient embeddings."""
    rows = np.flatnonzero(answerable)
    vectors, scores, items = student_scores(run, rows)
    embeddings = selection.gradient_embeddings(scores, items, vectors, num_items=run.dataset.num_items)
    return rows[np.asarray(selection.k_means_plus_plus(run.key(42), embeddings, num=run.settings.resolved_budget))]


def in_rounds(run: "RunContext", answerable: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " num"]:
    """Selects by the game in rounds; the lists of each round are distilled, and difficulty is estimated again.

    Difficulty is always that for the student, at first as it was trained. In each round the game is solved over the
    sessions that are left, and the student is distilled anew from the lists of all rounds before.
    """
    rows, model, train = np.flatnonzero(answerable), run.model("student"), run.split("train")

    def policy_after(chosen: Int[np.ndarray, " M"]) -> Float[np.ndarray, " N"]:
        params = run.first_params("student")
        if len(chosen):
            lists = answers_at_once(run, run.dataset.train.take(rows[chosen]), "Rounds")
            options = run.fit_options | {"seeds": 1}
            params = jax.tree.map(lambda leaf: leaf[0], fine_tuned(run, lists, options, {}, purpose=43).params)
        left = np.setdiff1d(np.arange(len(rows)), chosen)
        items, mask = (np.asarray(array)[rows[left]] for array in (train.items, train.mask))
        difficulty = selection.session_difficulty(model, params, items, mask, mesh=run.mesh)
        log_policy = np.full(len(rows), -np.inf, np.float32)
        solution, _ = games.solve_game(run.settings, selection.difficulty_rank(difficulty))
        log_policy[left] = np.asarray(solution.log_policy)
        return log_policy

    num, rounds = run.settings.resolved_budget, run.settings.selection_rounds
    return rows[selection.select_in_rounds(run.key(44), policy_after, num=num, rounds=min(rounds, num))]


def by_measured_game(run: "RunContext", answerable: Bool[np.ndarray, " N"]) -> Int[np.ndarray, " num"]:
    """Selects a random pilot, measures shares and gains of its lists, and samples the rest from the game with these.

    The pilot is a part of the budget. The game is solved again before every draw, because the policy of a game that
    cannot be won has few sessions.
    """
    rows, num, train = np.flatnonzero(answerable), run.settings.resolved_budget, run.dataset.train
    size = min(num, max(1, round(run.settings.pilot_share * num)))
    pilot = np.asarray(selection.select(run.key(45), selection.random_policy(len(rows)), num=size))
    if size == num:
        return rows[pilot]
    lists = answers_at_once(run, train.take(rows[pilot]), "Measured gains")
    sessions = train.take(train.rows_of(lists.session_id))
    target = np.asarray(sessions.target)
    student = np.asarray(run.candidates(sessions, num=NUM_CANDIDATES, name="student").items)
    game = selection.measure_game(_place(np.asarray(lists.items), target), _rank(student, target))
    left = np.setdiff1d(np.arange(len(rows)), pilot)
    rank = selection.difficulty_rank(run.load_array("difficulty.npz", "difficulty")[rows[left]])
    ranked = maxmin.RankedGame(
        rank, ratios=game.ratios, similar_ratio=game.similar_ratio, incorrect_ratio=game.incorrect_ratio
    )
    drawn = np.asarray(selection.select(run.key(46), ranked, num=num - size, resolve="each"))
    return rows[np.concatenate([pilot, left[drawn]])]


def _place(lists: Int[np.ndarray, "M K"], target: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Returns the place of each target in its list, from 1; 0 where it is not listed."""
    is_target = lists == target[:, None]
    return np.where(is_target.any(1), is_target.argmax(1) + 1, 0)


def _rank(lists: Int[np.ndarray, "M K"], target: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    """Returns the place of each target in its list, from 1; one more than all where it is not listed."""
    place = _place(lists, target)
    return np.where(place > 0, place, lists.shape[1] + 1)


ACTIVE_SELECTIONS: Mapping[str, SelectRows] = {
    "Entropy": functools.partial(most_uncertain, measure=_ENTROPY),
    "Margin": functools.partial(most_uncertain, measure=_MARGIN),
    "K-center": by_k_center,
    "M-RARU": by_acceptance,
    "Gradient embeddings": by_gradients,
    "Rounds": in_rounds,
    "Measured gains": by_measured_game,
}
"""Name → selection that the paper does not have; each reads the student, and is made only where a method needs it."""


READS_ANSWERS = ("Rounds", "Measured gains")
"""Selections that read lists of the teacher while they select."""


_OPTIONS = {
    "M-RARU": ("uncertainty", _ENTROPY),
    "Rounds": ("selection_rounds", 4),
    "Measured gains": ("pilot_share", 0.2),
}
"""Selection → its option among the settings, and the default of it."""


def selection_options(settings: "Settings", needed: tuple[str, ...]) -> dict[str, Any]:
    """Returns the options of the needed selections that have not their default values, so that others can be added."""
    options = {name: (option, default) for name, (option, default) in _OPTIONS.items() if name in needed}
    return {
        option: getattr(settings, option)
        for option, default in options.values()
        if getattr(settings, option) != default
    }
