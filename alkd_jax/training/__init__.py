"""Training: one compiled program for each interval between validations, with seeds as a leading axis."""

from alkd_jax.objectives import Loss
from alkd_jax.training.curves import curve_log
from alkd_jax.training.fit import fit
from alkd_jax.training.large import fit_large
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.seeds import seed_keys

__all__ = [
    "FitResult",
    "History",
    "Loss",
    "Progress",
    "curve_log",
    "fit",
    "fit_large",
    "seed_keys",
]
