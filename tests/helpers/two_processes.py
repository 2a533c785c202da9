"""One of two processes, two devices each, that train, rank and draw together; `mesh_test.py` starts them.

python two_processes.py PART NUMBER PORT FOLDER
"""

import functools
import pathlib
import sys

import jax
import numpy as np


def by_tables(mesh, folder, *, max_steps):
    """Trains a few steps from whatever the folder of checkpoints holds, ranks, rates and draws."""
    from alkd_jax import evaluation, models, selection, training
    from alkd_jax.training.checkpoints import TrainingFolder
    from tests.training.fit_test import chain_sessions

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


def by_rows(mesh, folder, *, max_steps):
    """Trains a few steps by rows; one row more than is even has the tables handed back on the host, else in parts."""
    from jax.experimental import multihost_utils

    from alkd_jax import models, objectives, training
    from alkd_jax.ops import embedding
    from alkd_jax.training.checkpoints import TrainingFolder
    from tests.training.large_test import NUM_ITEMS, SAMPLED, TRAIN, VALIDATION

    found = {}
    for num_items in (NUM_ITEMS, NUM_ITEMS + 1):
        fitted = training.fit_large(
            jax.random.key(0),
            models.create("stamp", num_items=num_items, dim=4),
            TRAIN,
            VALIDATION,
            loss_of=functools.partial(objectives.sampled_loss, kind="softmax", num_negatives=3),
            loss_inputs=SAMPLED,
            row_optimizer=embedding.adam(0.3),
            batch_size=64,
            max_steps=max_steps,
            steps_per_validation=5,
            recall_at=5,
            checkpoints=None if folder is None else TrainingFolder(folder / str(num_items), every=1),
            mesh=mesh,
        )
        for name, leaf in fitted.params["params"].items():
            in_parts = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
            found[f"{name} of {num_items}"] = multihost_utils.process_allgather(leaf, tiled=True) if in_parts else leaf
        found[f"losses of {num_items}"] = fitted.history.loss
        found[f"recalls of {num_items}"] = fitted.history.recall
    return {name: np.asarray(leaf) for name, leaf in found.items()}


PARTS = {"by_tables": by_tables, "by_rows": by_rows}


def main():
    part, number, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, number)
    from alkd_jax import sharding

    assert (len(jax.local_devices()), len(jax.devices())) == (2, 4)
    mesh = sharding.make_mesh("data=2,model=2")
    PARTS[part](mesh, folder / "training", max_steps=5)
    # From what both have kept.
    found = PARTS[part](mesh, folder / "training", max_steps=10)
    np.savez(folder / f"process_{number}.npz", allow_pickle=False, **found)


if __name__ == "__main__":
    main()
