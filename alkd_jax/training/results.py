"""What training tells: while it runs, and when it is done."""

import dataclasses

import numpy as np

from alkd_jax.models import Params


@dataclasses.dataclass(frozen=True)
class History:
    """What the host saw after each validation; NaN once a seed has stopped.

    Attributes:
        step: ``[T]`` steps taken so far; the first is 0, before any.
        loss: ``[S, T]`` training loss of the interval's last batch; NaN at step 0.
        recall: ``[S, T]`` validation recall.
    """

    step: np.ndarray
    loss: np.ndarray
    recall: np.ndarray


@dataclasses.dataclass(frozen=True)
class FitResult:
    """The outcome of :func:`alkd_jax.training.fit`.

    Attributes:
        params: the best parameters of each seed, with a leading seed axis.
        history: the learning curves.
        best_step: ``[S]`` the step each seed's parameters are from.
        best_metric: ``[S]`` their validation recall.
        sessions_per_second: training examples a second, all seeds together, compilation left out.
    """

    params: Params
    history: History
    best_step: np.ndarray
    best_metric: np.ndarray
    sessions_per_second: float


@dataclasses.dataclass(frozen=True)
class Progress:
    """What an onlooker is told after each validation; means are over the seeds that were still training.

    Attributes:
        step: steps taken so far.
        max_steps: steps at most.
        losses: ``[S]`` training loss of the interval's last batch; NaN for a seed that has stopped.
        recalls: ``[S]`` validation recall, likewise.
        speed: examples a second, all seeds together, compilation left out; NaN before it is known.
        active: seeds that go on.
    """

    step: int
    max_steps: int
    losses: np.ndarray
    recalls: np.ndarray
    speed: float
    active: int

    @property
    def loss(self) -> float:
        """Mean training loss."""
        return float(np.nanmean(self.losses))

    @property
    def recall(self) -> float:
        """Mean validation recall."""
        return float(np.nanmean(self.recalls))
