"""Boosted trees on top of a linear re-ranker, by LightGBM: what features say together, beyond their weighted sum.

It maximizes the likelihood that the linear re-ranker maximizes, a conditional logit over a session's candidates, with
``score(v | s) = linear(s, v) + Σ_t f_t(s, v)``.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from alkd_jax.baselines.re_ranker import CandidateRanker, Candidates
from alkd_jax.checks import check_count, check_rates
from alkd_jax.errors import import_extra
from alkd_jax.evaluation.conditional_logit import Choices

GROWTH = {
    "min_data_in_leaf": 50,
    "min_sum_hessian_in_leaf": 1.0,
    "lambda_l2": 1.0,
    "feature_fraction": 0.8,
}
"""LightGBM's options of a tree; a leaf with gradient g and curvature h, at least 1, takes the step ``−g / (h + 1)``."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeReRanker:
    """A linear re-ranker and trees.

    Attributes:
        linear: the linear re-ranker, whose scores the trees start from.
        trees: LightGBM's model.
        num_trees: number of trees that are read, the first of them.
    """

    linear: CandidateRanker
    trees: Any
    num_trees: int

    def scores(self, candidates: Candidates) -> Float[np.ndarray, "B C"]:
        """Returns the scores of candidates, −inf where there is none."""
        scores = np.array(self.linear.scores(candidates), np.float64)
        row, place = np.nonzero(candidates.mask)
        if len(row):
            described = candidates.features[row, place]
            scores[row, place] += self.trees.predict(described, raw_score=True, num_iteration=self.num_trees)
        return scores


def fit_trees(
    choices: Choices,
    linear: CandidateRanker,
    *,
    num_trees: int = 200,
    num_leaves: int = 7,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> TreeReRanker:
    """Boosts trees from the scores of a linear re-ranker.

    Tree after tree is fitted to the gradient of ``Σ_n log P(target_n)``, with
    ``P(k | list n) = exp(score_nk) / Σ_j exp(score_nj)``. The same call gives the same trees.

    Args:
        choices: of :func:`alkd_jax.baselines.training_choices`, those that the linear re-ranker was fitted to.
        linear: of :func:`alkd_jax.baselines.fit_re_ranker`.
        num_trees: at least 1.
        num_leaves: leaves of a tree, at least 2.
        learning_rate: factor of each tree, above 0.
        seed: of the features that each tree is shown, four of five.

    Raises:
        ValueError: an option is out of range, or no feature tells candidates apart.
        ModuleNotFoundError: LightGBM is not installed; the extra `trees` installs it.
    """
    check_count(1, num_trees=num_trees)
    check_count(2, num_leaves=num_leaves)
    check_rates(learning_rate=learning_rate)
    lightgbm = import_extra("lightgbm")
    row, place = np.nonzero(choices.mask)
    is_target = (place == choices.chosen[row]).astype(np.float64)
    starts = np.searchsorted(row, np.arange(len(choices)))

    def gradient(scores: Float[np.ndarray, " M"], _: Any) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
        exponential = np.exp(scores - np.maximum.reduceat(scores, starts)[row])
        probability = exponential / np.add.reduceat(exponential, starts)[row]
        return probability - is_target, probability * (1.0 - probability)

    described = choices.features[row, place]
    if not np.ptp(described, axis=0).any():
        raise ValueError(f"features of the {len(described)} candidates are all the same; expected some that differ")
    listed = Candidates(np.where(choices.mask, np.arange(1, choices.mask.shape[1] + 1), 0), choices.features)
    data = lightgbm.Dataset(described, is_target, init_score=linear.scores(listed)[row, place])
    settings = GROWTH | {
        "objective": gradient,
        "num_leaves": num_leaves,
        "learning_rate": learning_rate,
        # Otherwise it refuses to grow on fewer candidates than two leaves need.
        "feature_pre_filter": False,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    return TreeReRanker(linear, lightgbm.train(settings, data, num_boost_round=num_trees), num_trees)
