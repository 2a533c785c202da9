"""One of two processes, two devices each, that train, rank and draw together; `mesh_test.py` starts them.

python two_processes.py NUMBER PORT FOLDER
"""

import pathlib
import sys

import jax
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def work(mesh, folder, *, max_steps):
    """Trains a few steps from whatever the folder of checkpoints holds, ranks, rates and draws."""
    from training_test import chain_sessions

    from alkd_jax import evaluation, models, selection, training
    from alkd_jax.checkpoints import TrainingFolder

    model = models.create("fpmc", num_items=40, dim=6)
    train, validation = chain_sessions(200, 0, 0), chain_sessions(60, 200, 1)
    fitted = training.fit(
        jax.random.key(0),
        model,
        train,
        validation,
        batch_size=64,
        learning_rate=0.05,
        max_steps=max_steps,
        steps_per_validation=5,
        checkpoints=None if folder is None else TrainingFolder(folder, every=1),
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


def main():
    number, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    from alkd_jax import sharding

    assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
    found = work(sharding.make("data=2,model=2"), folder / "training", max_steps=10)
    np.savez(folder / f"process_{number}.npz", allow_pickle=False, **found)


if __name__ == "__main__":
    main()
