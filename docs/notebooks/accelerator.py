# %% [markdown]
# # Training on an accelerator
#
# The same notebook runs on a CPU, a GPU and a TPU, for instance on Colab: open it there (see
# [notebooks](index.md)), choose a runtime with an accelerator, and run all cells. Sizes follow the device that is
# found.
#
# ## 1. Installation that keeps the installed JAX
#
# On Colab JAX is there, built for its GPU or TPU. Another JAX would lose the accelerator, so pip is told to keep
# the versions of `jax` and `jaxlib`; where they are too old for this package, pip says so and changes nothing. The
# package itself comes as a wheel: `python -m pip wheel --no-deps PATH_TO_CHECKOUT` makes one, to be put into the
# current folder.

# %%
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

if importlib.util.find_spec("alkd_jax") is None:
    wheels = sorted(pathlib.Path.cwd().glob("alkd_jax-*.whl"))
    if not wheels:
        raise FileNotFoundError("alkd_jax-*.whl is not in the current folder; expected the wheel of alkd_jax there")
    kept = [f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "jaxlib")]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(wheels[-1]), *kept], check=True)

# %%
import time

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd

on_cpu = jax.default_backend() == "cpu"
print(f"JAX {jax.__version__}: {len(jax.devices())} device(s) of kind {jax.devices()[0].device_kind}")

# %% [markdown]
# ## 2. Data and model
#
# Data lie on the host as numpy arrays and go to the device once. Training examples are pairs of a session and a
# position, so prefixes are never copied.

# %%
num_items, num_sessions, dim = (2_000, 6_000, 32) if on_cpu else (50_000, 100_000, 128)
ds = alkd.data.synthetic(num_items=num_items, num_sessions=num_sessions, seed=0)
model = alkd.models.create("fpmc", num_items=ds.num_items, dim=dim)
log_q = alkd.samplers.log_frequency(ds.train_sequences.items, ds.num_items)
print(f"{len(ds.train):,} training sessions with {len(ds.train_sequences.items):,} items")

# %% [markdown]
# ## 3. All devices
#
# A mesh names the devices. `data` splits batches among them, `model` splits the rows of the item tables, for
# catalogues that do not fit one device. The result is the same but for the order of sums. A single device is a
# mesh, too.

# %%
mesh = alkd.sharding.make_mesh({"data": len(jax.devices())})

# %% [markdown]
# ## 4. Training
#
# `precision` is that of the products in the loss; parameters and validation stay in float32. The steps between two
# validations are one compiled program. The first call compiles, the second one, with other random numbers, does
# not.

# %%
options = {
    "targets": "all",
    "sequences": ds.train_sequences,
    "loss": alkd.objectives.InBatchSoftmax(model, log_q),
    "learning_rate": 5e-3,
    "batch_size": 1024 if on_cpu else 8192,
    "max_steps": 400,
    "steps_per_validation": 100,
    "precision": "float32" if on_cpu else "bfloat16",
    "mesh": mesh,
}
for call in ("with compilation", "compiled before"):
    start = time.perf_counter()
    fitted = alkd.fit(jax.random.key(len(call)), model, ds.train, ds.validation, **options)
    jax.block_until_ready(fitted.params)
    seconds = time.perf_counter() - start
    print(f"{call}: {seconds:.1f} s, {options['max_steps'] * options['batch_size'] / seconds:,.0f} examples a second")

# %% [markdown]
# A GPU that is hardly used by a small model is normal. Train several seeds at once (`seeds=5`), enlarge the batch,
# or look where the time goes: `alkd benchmark device` checks and times a device, and `alkd reproduce --profile DIR`
# records a profile.
#
# ## 5. Exact lists
#
# `alkd.top_k` goes through the catalogue in blocks, so the matrix of all scores is never in memory. Its lists are
# exact. Here they are beside numpy in float64.

# %%
params = jax.tree.map(lambda leaf: leaf[0], fitted.params)
items, mask = jnp.asarray(ds.test.items[:256]), jnp.asarray(ds.test.mask[:256])
vectors, table = model.apply(params, items, mask), model.apply(params, method="item_embeddings")
scores, ids = alkd.top_k(vectors, table, 10, exclude=items)

reference = np.asarray(vectors, np.float64) @ np.asarray(table, np.float64).T
np.put_along_axis(reference, np.asarray(items), -np.inf, axis=1)
reference[:, 0] = -np.inf
best = np.sort(reference, axis=1)[:, :-11:-1]
error = np.abs(best - np.asarray(scores)).max() / np.abs(best).max()
print(f"largest difference of a score, relative to the largest score: {error:.1e}")

# %% [markdown]
# ## 6. The test
#
# Ranks over the full catalogue, on the same devices, beside the recommender that lists what is popular.

# %%
recall = alkd.evaluate(model, params, ds.test, ks=(10,), mesh=mesh).metrics["recall@10"]
popular = alkd.baselines.fit("popularity", ds.train_sequences, ds.num_items)
counts = alkd.baselines.count(ds.train_sequences, ds.num_items)
by_popularity = np.mean(alkd.baselines.rank_targets(popular, counts, ds.test.take(slice(0, 2000))) <= 10)
print(f"recall@10 {recall:.4f}, popularity {by_popularity:.4f}")

# %%
assert error < 1e-5
assert recall > 2 * by_popularity

# %% [markdown]
# Next: [many devices](../many_devices.md), [large catalogues](../large_catalogues.md), [several
# machines](../several_machines.md).
