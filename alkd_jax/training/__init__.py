"""Training: one compiled program for each interval between validations, with seeds as a leading axis."""

from alkd_jax.objectives import Loss, in_batch_loss
from alkd_jax.training.curves import curve_log
from alkd_jax.training.fit import fit, seed_keys
from alkd_jax.training.large import fit_large
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.steppers.dense import TrainState

__all__ = [
    "FitResult",
    "History",
    "Loss",
    "Progress",
    "TrainState",
    "curve_log",
    "fit",
    "fit_large",
    "in_batch_loss",
    "seed_keys",
]
