"""Training runs that a process of their own begins and is killed in; the tests of resuming continue them.

python interrupted_training.py FUNCTION FOLDER STEP
"""

import os
import pathlib
import signal
import subprocess
import sys

import jax

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from alkd_jax import models, training
from alkd_jax.ops import embedding
from alkd_jax.training.checkpoints import TrainingFolder
from tests.helpers import paths, row_sparse_data
from tests.helpers.cyclic_sessions import NUM_ITEMS, cyclic_sessions

FIT_OPTIONS = dict(batch_size=64, steps_per_validation=5, learning_rate=0.05, recall_at=5, validation_batch=32)


def fit(folder, *, key=0, patience=100, learning_rate=0.05, dim=6, train_seed=0, interrupted=None, **options):
    """Two seeds of dense training with checkpoints in `folder`; None keeps none."""
    model = models.create("fpmc", num_items=NUM_ITEMS, dim=dim)
    defaults = FIT_OPTIONS | {"max_steps": 40, "patience": patience, "learning_rate": learning_rate}
    return training.fit(
        jax.random.key(key),
        model,
        cyclic_sessions(300, 0, train_seed),
        cyclic_sessions(90, 300, 1),
        seeds=2,
        checkpoints=None if folder is None else TrainingFolder(folder, every=2, interrupted=interrupted),
        **(defaults | options),
    )


def fit_large(
    folder,
    *,
    key=0,
    dim=4,
    learning_rate=0.3,
    every=2,
    data=(row_sparse_data.TRAIN, row_sparse_data.VALIDATION),
    **options,
):
    """Row-sparse training with checkpoints in `folder`; None keeps none."""
    model = models.create("stamp", num_items=row_sparse_data.NUM_ITEMS, dim=dim)
    defaults = {
        "loss": row_sparse_data.sampled_softmax(model),
        "row_optimizer": embedding.adam(learning_rate),
        "batch_size": 64,
        "max_steps": 40,
        "steps_per_validation": 5,
        "patience": 100,
        "recall_at": 5,
    }
    return training.fit_large(
        jax.random.key(key),
        model,
        *data,
        checkpoints=None if folder is None else TrainingFolder(folder, every=every),
        **(defaults | options),
    )


def run_until_killed(function, folder, step, **environment):
    """Runs `fit` or `fit_large` in a process that kills itself when validation reaches the step."""
    command = [sys.executable, __file__, function.__name__, str(folder), str(step)]
    env = os.environ | {"PYTHONPATH": str(paths.ROOT)} | environment
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == -signal.SIGKILL, done.stderr


def main():
    function, folder, last_step = {"fit": fit, "fit_large": fit_large}[sys.argv[1]], *sys.argv[2:]

    def kill(progress):
        if progress.step >= int(last_step):
            os.kill(os.getpid(), signal.SIGKILL)

    function(pathlib.Path(folder), progress=kill)


if __name__ == "__main__":
    main()
