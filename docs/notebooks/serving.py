# %% [markdown]
# # Serving and exporting
#
# A trained student becomes a folder. From there it answers without JAX, as a compiled program, as an ONNX graph, or
# over HTTP, with the same lists everywhere. Needs the extras `export`, `onnx` and `serve`: `pip install
# "PATH_TO_CHECKOUT[export,onnx,serve]"`.

# %%
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd

# %% [markdown]
# ## 1. A student
#
# How it was trained does not matter here; students that were distilled are exported in the same way.

# %%
ds = alkd.data.synthetic(num_items=500, num_sessions=1000, seed=0)
student = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
fitted = alkd.fit(jax.random.key(0), student, ds.train, ds.validation, max_steps=200)
params = jax.tree.map(lambda leaf: leaf[0], fitted.params)  # of the first seed

# %% [markdown]
# ## 2. The folder
#
# Weights, the catalogue with ids and titles, two compiled forms, a model card, and a configuration with the digest
# of every file. `save` reads the folder again and compares scores before it is done.

# %%
folder = pathlib.Path(tempfile.mkdtemp()) / "student"
alkd.export.save(folder, student, params, ds, dtype="float16")
for file in sorted(folder.iterdir()):
    print(f"{file.name:20} {file.stat().st_size:>8,} bytes")

# %% [markdown]
# ## 3. Lists without JAX
#
# `Recommender` needs numpy alone. Ids are those of the source, and unknown ones are skipped and counted.

# %%
recommender = alkd.Recommender.load(folder)
session = ["item-1", "item-2", "no such item"]
print(recommender.lookup(session))
for found in recommender.recommend(session, k=3):
    print(f"{found.score:7.3f}  {found.item_id:9} {found.title}")

# %%
code = f"""
import sys
from alkd_jax import Recommender
student = Recommender.load({str(folder)!r})
print(len(student.recommend(["item-1"])), "items; JAX was imported:", "jax" in sys.modules)
"""
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

# %% [markdown]
# How long does a list take? The median of 500 sessions, one at a time:

# %%
histories = [
    [ds.item_ids[item] for item in items[mask]]
    for items, mask in zip(np.asarray(ds.test.items), np.asarray(ds.test.mask), strict=True)
]
times = []
for number in range(500):
    start = time.perf_counter()
    recommender.recommend(histories[number % len(histories)])
    times.append(time.perf_counter() - start)
print(f"{np.median(times) * 1e6:.0f} µs")

# %% [markdown]
# ## 4. The compiled forms
#
# The StableHLO program runs on CPU, CUDA and TPU, the ONNX graph wherever ONNX Runtime does. Both take item
# numbers, `[B, L]`, and the items to leave out.

# %%
items = np.asarray(ds.test.items, np.int32)
_, by_program = alkd.export.load_program(folder)(items, items)
_, by_onnx = alkd.export.load_onnx(folder)(items, items)

# %% [markdown]
# ## 5. Over HTTP
#
# On a server this is `alkd serve --model student --port 8000`. Here it runs in a thread, on a free port.

# %%
from alkd_jax.serving import http, server  # noqa: E402

service = server.create_server(http.application(recommender), log_level="warning")
sockets = server.listen("127.0.0.1", 0)
threading.Thread(target=service.run, args=(sockets,), daemon=True).start()
while not service.started:
    time.sleep(0.01)


def ask(session, k=10):
    """Asks the service for a list."""
    address = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/recommend"
    body = json.dumps({"session": session, "k": k}).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body)) as answer:
        return json.load(answer)


print(json.dumps(ask(histories[0], k=2), indent=1))

# %% [markdown]
# ## 6. The same lists everywhere
#
# The test sessions, in five ways: by the rounded weights in JAX, by numpy, by the two compiled forms, and over HTTP.

# %%
rounded = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float16), jnp.float32), params)
vectors = student.apply(rounded, jnp.asarray(items), jnp.asarray(ds.test.mask))
table = student.apply(rounded, method="item_embeddings")
_, by_jax = alkd.top_k(vectors, table, 10, exclude=jnp.asarray(items))


def ids_of(rows):
    """Raw ids of lists of item numbers."""
    return [[ds.item_ids[item] for item in row] for row in np.asarray(rows)[:, :10]]


lists = {
    "JAX": ids_of(by_jax),
    "numpy": [[found.item_id for found in row] for row in recommender.recommend_batch(histories, k=10)],
    "StableHLO": ids_of(by_program),
    "ONNX": ids_of(by_onnx),
    "HTTP": [[found["id"] for found in ask(history)["items"]] for history in histories],
}
same = {name: sum(one == other for one, other in zip(lists["JAX"], rows, strict=True)) for name, rows in lists.items()}
for name, number in same.items():
    print(f"{name:10} {number} of {len(histories)} lists equal")

# %%
service.should_exit = True
assert all(number == len(histories) for number in same.values())
assert (folder / "model.safetensors").stat().st_size < 25_000

# %% [markdown]
# [A student in production](../serving.md) has the commands, lists for many sessions in one file, and the Hugging
# Face Hub.
#
# ```
# alkd export --run runs/plays --method ALKDRec --out student --dtype float16
# alkd serve --model student --port 8000
# ```
