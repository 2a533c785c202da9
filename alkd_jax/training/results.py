"""The results of training: learning curves, the best parameters, and the progress reported after each validation."""

import dataclasses
from collections.abc import Callable, Sequence

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
        recall_at: k of the validation recall.
    """

    step: int
    max_steps: int
    losses: np.ndarray
    recalls: np.ndarray
    speed: float
    active: int
    recall_at: int

    @property
    def loss(self) -> float:
        """Mean training loss."""
        return float(np.nanmean(self.losses))

    @property
    def recall(self) -> float:
        """Mean validation recall."""
        return float(np.nanmean(self.recalls))


def progress_of_seed(progress: Callable[[Progress], None], place: int, num_seeds: int) -> Callable[[Progress], None]:
    """Returns a callback for one of several seeds that are trained one after the other; other seeds' numbers are NaN.

    Args:
        progress: the callback for all seeds.
        place: of the seed among all seeds.
        num_seeds: S.
    """

    def report(now: Progress) -> None:
        losses, recalls = np.full((2, num_seeds), np.nan)
        losses[place], recalls[place] = now.losses[0], now.recalls[0]
        active = now.active + num_seeds - 1 - place
        progress(dataclasses.replace(now, losses=losses, recalls=recalls, active=active))

    return report


def combine_seeds(results: Sequence[FitResult], params: Params) -> FitResult:
    """Combines the results of seeds that were trained one after the other; shorter curves end with NaN.

    Args:
        results: of each seed; their parameters are not read.
        params: the parameters of all seeds.
    """
    steps = max((result.history.step for result in results), key=len)

    def padded(curve: np.ndarray) -> np.ndarray:
        return np.pad(curve, ((0, 0), (0, len(steps) - curve.shape[1])), constant_values=np.nan)

    return FitResult(
        params=params,
        history=History(
            step=steps,
            loss=np.concatenate([padded(result.history.loss) for result in results]),
            recall=np.concatenate([padded(result.history.recall) for result in results]),
        ),
        best_step=np.concatenate([result.best_step for result in results]),
        best_metric=np.concatenate([result.best_metric for result in results]),
        sessions_per_second=float(np.mean([result.sessions_per_second for result in results])),
    )
