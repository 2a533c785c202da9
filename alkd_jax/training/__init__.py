"""Training: one compiled program for each interval between validations, with seeds as a leading axis."""

from alkd_jax.objectives import Loss
from alkd_jax.training.fit import fit
from alkd_jax.training.item_vectors import CHANNELS, ItemVectors, fit_with_vectors
from alkd_jax.training.large import fit_large
from alkd_jax.training.parallel_sessions import parallel_sessions
from alkd_jax.training.reports import reporting, training_bar
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.seeds import seed_keys
from alkd_jax.training.sharded_sessions import shard_sessions
from alkd_jax.training.trackers import TRACKERS, JsonLines, MLflow, TensorBoard, Tracker, WandB, make_tracker

__all__ = [
    "CHANNELS",
    "TRACKERS",
    "FitResult",
    "History",
    "ItemVectors",
    "JsonLines",
    "Loss",
    "MLflow",
    "Progress",
    "TensorBoard",
    "Tracker",
    "WandB",
    "fit",
    "fit_large",
    "fit_with_vectors",
    "make_tracker",
    "parallel_sessions",
    "reporting",
    "seed_keys",
    "shard_sessions",
    "training_bar",
]
