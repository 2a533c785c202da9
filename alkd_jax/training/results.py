"""The results of training: learning curves, the best parameters, and the progress reported after each validation."""

import dataclasses

import numpy as np

from alkd_jax.models import Params


@dataclasses.dataclass(frozen=True)
class History:
    """Learning curves with one entry for each validation; NaN after a seed has stopped.

    Attributes:
        step: ``[T]`` steps taken so far; the first entry is 0, before any step.
        loss: ``[S, T]`` training loss of the interval's last batch; NaN at step 0.
        recall: ``[S, T]`` validation recall.
    """

    step: np.ndarray
    loss: np.ndarray
    recall: np.ndarray


@dataclasses.dataclass(frozen=True)
class FitResult:
    """The result of :func:`alkd_jax.training.fit`.

    Attributes:
        params: the best parameters of each seed, with a leading seed axis.
        history: the learning curves.
        best_step: ``[S]`` the step after which each seed had these parameters.
        best_metric: ``[S]`` their validation recall.
        sessions_per_second: training examples per second of all seeds together, without compilation time.
    """

    params: Params
    history: History
    best_step: np.ndarray
    best_metric: np.ndarray
    sessions_per_second: float


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of training after a validation; means are over the seeds that were still training.

    Attributes:
        step: steps taken so far.
        max_steps: the largest number of steps.
        losses: ``[S]`` training loss of the interval's last batch; NaN for a seed that has stopped.
        recalls: ``[S]`` validation recall; NaN for a seed that has stopped.
        speed: training examples per second of all seeds together, without compilation time; NaN until it is known.
        active: number of seeds that have not stopped.
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
