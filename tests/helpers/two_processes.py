"""One of two processes with two devices each that train, rank and sample together; `mesh_test.py` starts them.

python two_processes.py PART NUMBER PORT FOLDER
"""

import pathlib
import signal
import sys

import jax
import numpy as np


def train_dense(mesh, folder, *, max_steps, interrupted=None):
    """Trains a few steps from the newest checkpoint, then ranks, computes difficulties and samples sessions."""
    from alkd_jax import evaluation, models, selection, training
    from alkd_jax.training.checkpoints import TrainingFolder
    from tests.helpers.cyclic_sessions import cyclic_sessions

    model = models.create("fpmc", num_items=40, dim=6)
    train, validation = cyclic_sessions(200, 0, 0), cyclic_sessions(60, 200, 1)
    fitted = training.fit(
        jax.random.key(0),
        model,
        train,
        validation,
        batch_size=64,
        learning_rate=0.05,
        max_steps=max_steps,
        steps_per_validation=5,
        checkpoints=None if folder is None else TrainingFolder(folder, every=1, interrupted=interrupted),
        mesh=mesh,
    )
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[0], fitted.params)
    difficulty = selection.session_difficulty(model, params, train.items, train.mask, batch_size=64, mesh=mesh)
    policy = np.round(10 * difficulty).astype(np.float32)
    return {
        **params["params"],
        "losses": fitted.history.loss,
        "ranks": evaluation.evaluate(model, params, validation, mesh=mesh).ranks,
        "difficulty": difficulty,
        "drawn": np.asarray(selection.select(jax.random.key(1), policy, num=20, mesh=mesh)),
    }


def train_row_sparse(mesh, folder, *, max_steps, interrupted=None):
    """Trains a few steps with row-sparse updates, on tables that split evenly and on tables that do not."""
    from jax.experimental import multihost_utils

    from alkd_jax import models, training
    from alkd_jax.ops import embedding
    from alkd_jax.training.checkpoints import TrainingFolder
    from tests.helpers.row_sparse_data import NUM_ITEMS, TRAIN, VALIDATION, sampled_softmax

    results = {}
    for num_items in (NUM_ITEMS, NUM_ITEMS + 1):
        model = models.create("stamp", num_items=num_items, dim=4)
        fitted = training.fit_large(
            jax.random.key(0),
            model,
            TRAIN,
            VALIDATION,
            loss=sampled_softmax(model),
            row_optimizer=embedding.adam(0.3),
            batch_size=64,
            max_steps=max_steps,
            steps_per_validation=5,
            recall_at=5,
            checkpoints=None
            if folder is None
            else TrainingFolder(folder / str(num_items), every=1, interrupted=interrupted),
            mesh=mesh,
        )
        for name, leaf in fitted.params["params"].items():
            is_sharded = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
            results[f"{name} of {num_items}"] = (
                multihost_utils.process_allgather(leaf, tiled=True) if is_sharded else leaf
            )
        results[f"losses of {num_items}"] = fitted.history.loss
        results[f"recalls of {num_items}"] = fitted.history.recall
    return {name: np.asarray(leaf) for name, leaf in results.items()}


def is_stopped_by_sigterm(train, mesh, folder, *, to_this_process):
    """Whether a training ends after its first validation, where one of the processes gets SIGTERM meanwhile."""
    from experiments.pipeline import interrupts

    num_asked = 0
    try:
        with interrupts.sigterm_as_ctrl_c() as has_sigterm, interrupts.postponed() as is_waiting:

            def interrupted():
                nonlocal num_asked
                num_asked += 1
                is_waiting()
                if to_this_process:
                    signal.raise_signal(signal.SIGTERM)
                return is_waiting()

            train(mesh, folder, max_steps=10, interrupted=interrupted)
    except KeyboardInterrupt:
        return num_asked == 1 and has_sigterm() == to_this_process
    return False


PARTS = {"dense": train_dense, "row_sparse": train_row_sparse}


def main():
    part, number, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    from alkd_jax import sharding

    assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
    mesh = sharding.make_mesh("data=2,model=2")
    assert is_stopped_by_sigterm(PARTS[part], mesh, folder / "training", to_this_process=number == 1)
    # Continues from the checkpoints of both processes.
    results = PARTS[part](mesh, folder / "training", max_steps=10)
    np.savez(folder / f"process_{number}.npz", allow_pickle=False, **results)


if __name__ == "__main__":
    main()
