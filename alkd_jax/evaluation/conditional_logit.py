"""The conditional logit: which of a list's items was chosen, by features of the items, fitted in float64 on the host.

``P(k | list n) = exp(βᵀ x_nk) / Σ_j exp(βᵀ x_nj)``. A feature informs a choice as far as held-out lists are more likely
with it than without it, in nats for each list.
"""

import dataclasses

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from alkd_jax.checks import check_at_least, check_between, check_count, check_finite, check_span

_MAX_STEPS = 100
_MAX_HALVINGS = 40
_TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Choices:
    """Lists of items of which one was chosen.

    Attributes:
        features: ``[N, K, F]``, finite; what stands where the mask is False is not read.
        mask: ``[N, K]``, True on the items of a list.
        chosen: ``[N]``, place of the chosen item in its list, in ``0..K - 1``, where the mask is True.
    """

    features: Float[np.ndarray, "N K F"]
    mask: Bool[np.ndarray, "N K"]
    chosen: Int[np.ndarray, " N"]

    def __post_init__(self) -> None:
        shape = self.features.shape
        if len(shape) != 3 or self.mask.shape != shape[:2] or self.chosen.shape != shape[:1] or 0 in shape[:2]:
            shapes = f"features {shape}, mask {self.mask.shape}, chosen {self.chosen.shape}"
            raise ValueError(f"shapes are {shapes}; expected [N, K, F], [N, K] and [N] with N, K ≥ 1")
        check_span("chosen", self.chosen, 0, shape[1] - 1)
        if not self.mask[np.arange(shape[0]), self.chosen].all():
            row = int(np.argmin(self.mask[np.arange(shape[0]), self.chosen]))
            raise ValueError(f"chosen of list {row} is {self.chosen[row]}, where there is no item; expected an item")
        check_finite("features", self.features[self.mask])

    def __len__(self) -> int:
        """Returns the number of lists N."""
        return len(self.chosen)

    def take(self, rows: Int[np.ndarray, " M"] | Bool[np.ndarray, " N"]) -> "Choices":
        """Returns some of the lists."""
        return Choices(self.features[rows], self.mask[rows], self.chosen[rows])


def log_likelihood(coefficients: Float[np.ndarray, " F"], choices: Choices) -> Float[np.ndarray, " N"]:
    """Returns ``log P`` of each list's chosen item, in nats.

    Args:
        coefficients: β.
        choices: the lists.

    Example:
        >>> lists = alkd.evaluation.conditional_logit.Choices(np.zeros((1, 4, 1)), np.ones((1, 4), bool), np.array([2]))
        >>> alkd.evaluation.conditional_logit.log_likelihood(np.ones(1), lists).round(3)
        array([-1.386])
    """
    return _log_probabilities(coefficients, choices)[np.arange(len(choices)), choices.chosen]


def fit(choices: Choices, *, ridge: float = 1.0) -> Float[np.ndarray, " F"]:
    """Fits β by Newton's method: ``max_β Σ_n log P(chosen_n) − ½ ridge |β|²``.

    Args:
        choices: the lists; features of about unit scale, so that the penalty treats them alike.
        ridge: at least 0; with 0 the maximum has to exist, that is, no feature may separate the chosen items.

    Raises:
        ValueError: the penalty is negative, or the maximum was not found.

    Reference:
        McFadden, Conditional logit analysis of qualitative choice behavior, 1973.
    """
    check_at_least(0, ridge=ridge)
    features = np.where(choices.mask[..., None], choices.features, 0.0)
    chosen = features[np.arange(len(choices)), choices.chosen].sum(0)
    coefficients = np.zeros(features.shape[2])
    value = _penalized(coefficients, choices, ridge)
    for _ in range(_MAX_STEPS):
        probabilities = np.exp(_log_probabilities(coefficients, choices))
        expected = np.einsum("nk,nkf->nf", probabilities, features)
        gradient = chosen - expected.sum(0) - ridge * coefficients
        weighted = (features * np.sqrt(probabilities)[..., None]).reshape(-1, features.shape[2])
        hessian = weighted.T @ weighted - expected.T @ expected + ridge * np.eye(len(coefficients))
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        # Half the Newton decrement bounds what is left to gain near the maximum.
        if gradient @ step <= _TOLERANCE * len(choices):
            return coefficients + step
        for _ in range(_MAX_HALVINGS):
            found = _penalized(coefficients + step, choices, ridge)
            if found > value:
                break
            step = step / 2
        else:
            return coefficients
        coefficients, value = coefficients + step, found
    raise ValueError(f"the likelihood of {len(choices)} choices has no maximum; expected a larger ridge than {ridge}")


def cross_fitted(choices: Choices, *, folds: int = 10, ridge: float = 1.0, seed: int = 0) -> Float[np.ndarray, " N"]:
    """Returns ``log P`` of each list's chosen item by coefficients that were fitted to the lists of other folds.

    Every feature is centered and scaled by its mean and standard deviation over all lists, which no choice enters.

    Args:
        choices: N lists.
        folds: number of folds, in ``2..N``, to which the lists are assigned at random.
        ridge: see :func:`fit`.
        seed: of the folds; calls with the same seed and number of lists have the same folds.

    Raises:
        ValueError: the number of folds is out of its range, or as of :func:`fit`.
    """
    check_count(2, folds=folds)
    check_between(2, len(choices), folds=folds)
    scaled = standardized(choices)
    fold = np.random.default_rng(seed).permutation(len(choices)) % folds
    values = np.empty(len(choices))
    for held_out in range(folds):
        coefficients = fit(scaled.take(fold != held_out), ridge=ridge)
        values[fold == held_out] = log_likelihood(coefficients, scaled.take(fold == held_out))
    return values


def standardized(choices: Choices) -> Choices:
    """Returns the lists with features of mean 0 and standard deviation 1 over all items; constant features are 0."""
    listed = choices.features[choices.mask]
    deviation = listed.std(0)
    is_constant = deviation <= 1e-12 * np.abs(listed).max(0, initial=0.0)
    features = (choices.features - listed.mean(0)) * np.where(
        is_constant, 0.0, 1 / np.where(is_constant, 1.0, deviation)
    )
    return Choices(np.where(choices.mask[..., None], features, 0.0), choices.mask, choices.chosen)


def _log_probabilities(coefficients: Float[np.ndarray, " F"], choices: Choices) -> Float[np.ndarray, "N K"]:
    """Returns log P of each item, −inf where there is none."""
    scores = np.where(choices.mask, choices.features @ coefficients, -np.inf)
    return scipy.special.log_softmax(scores, axis=1)


def _penalized(coefficients: Float[np.ndarray, " F"], choices: Choices, ridge: float) -> float:
    return float(log_likelihood(coefficients, choices).sum() - 0.5 * ridge * coefficients @ coefficients)
