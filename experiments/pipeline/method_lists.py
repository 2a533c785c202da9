"""The lists that the methods learn from: the LLM's, those of the controls, and the conventional teacher's."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.io import read_json
from alkd_jax.llm.teachers import replay

from .stage_records import checked_output

if TYPE_CHECKING:
    from .run import RunContext


def llm_rankings(run: "RunContext", *, selection: str = "ALKDRec") -> alkd.Rankings:
    """Returns the LLM's lists for the sessions of a selection, a share of them corrected, the run's `correction`."""
    session_id = np.asarray(read_json(checked_output(run.folder.path, "selection.json"))[selection], np.int32)
    rankings = replay.lookup_rankings(run.rankings(), session_id)[0]
    return correct_rankings(rankings, run.dataset.train, run.settings.correction, seed=run.settings.seed)


def correct_rankings(rankings: alkd.Rankings, train: alkd.Sessions, share: float, *, seed: int) -> alkd.Rankings:
    """Puts the target first in some of the lists that do not hold it.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        share: share of the lists without their session's target that are corrected; they are chosen at random.
        seed: seed of the choice.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Figure 2b; Baykal et al., Robust active distillation, ICLR 2023.
    """
    target = np.asarray(train.target, np.int32)[train.rows_of(rankings.session_id)]
    lacks_target = np.flatnonzero(~(np.asarray(rankings.items) == target[:, None]).any(1))
    rows = np.random.default_rng(seed).permutation(lacks_target)[: round(share * len(lacks_target))]
    items, mask = np.asarray(rankings.items).copy(), np.asarray(rankings.mask).copy()
    items[rows, 1:], mask[rows, 1:] = items[rows, :-1], mask[rows, :-1]
    items[rows, 0], mask[rows, 0] = target[rows], True
    return alkd.Rankings(rankings.session_id, items, mask)


def all_teacher_lists(run: "RunContext") -> alkd.Rankings:
    """Returns the conventional teacher's top 50 for all training sessions."""
    return run.candidates(run.dataset.train, num=50)


def shuffled_lists(run: "RunContext") -> alkd.Rankings:
    """Returns the LLM's lists, permuted among their sessions."""
    rankings = llm_rankings(run)
    order = np.random.default_rng(run.settings.seed).permutation(len(rankings))
    return alkd.Rankings(rankings.session_id, rankings.items[order], rankings.mask[order])


def true_labels(run: "RunContext") -> alkd.Rankings:
    """Returns lists of the one true next item, for the sessions with a list of the LLM."""
    sessions = listed_sessions(run)
    return alkd.Rankings.from_top_k(sessions.session_id, np.asarray(sessions.target)[:, None])


def teacher_lists(run: "RunContext") -> alkd.Rankings:
    """Returns the conventional teacher's top 25 for the sessions with a list of the LLM."""
    return run.candidates(listed_sessions(run), num=25)


def baseline_lists(run: "RunContext", *, baseline: str) -> alkd.Rankings:
    """Returns the top 25 of a training-free recommender, by name, for the sessions with a list of the LLM."""
    dataset = run.dataset
    method = baselines.method(baseline)
    lists = baselines.held_out_lists(method, dataset.train_sequences, dataset.num_items, dataset.train, 25)
    return lists.take(np.isin(lists.session_id, listed_sessions(run).session_id))


def listed_sessions(run: "RunContext") -> alkd.Sessions:
    """Returns the training sessions with a list of the LLM."""
    return run.dataset.train.take(np.isin(run.dataset.train.session_id, llm_rankings(run).session_id))


def digest_of(rankings: alkd.Rankings) -> str:
    """Returns the SHA-256 of the sessions and items of some lists."""
    return hashlib.sha256(np.asarray(rankings.session_id).tobytes() + np.asarray(rankings.items).tobytes()).hexdigest()
