"""A complete run from a cold start: imports, compilation, 1,000 steps, 50 validations, one test; one process per run.

    python -m benchmarks.cold_run --rounds 3 --json FILE

Candidates: alkd_jax without JAX's compilation cache, alkd_jax with a filled one, and the eager PyTorch loop if PyTorch
is installed.
"""

import functools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import peers_torch
from .command_line import run_command
from .harness import Bench, compare

_CODE = "from {package} import cold_run; cold_run.{which}({path!r}, {steps}, {batch_size})"


def splits(path: str) -> dict[str, Any]:
    """The synthetic train, validation and test sessions, as plain arrays."""
    with np.load(path) as archive:
        names = ("train", "validation", "test")
        parts = ("items", "mask", "target", "session_id")
        return {name: {part: archive[f"{name}.{part}"] for part in parts} for name in names} | {
            "num_items": int(archive["num_items"])
        }


def run_alkd_jax(path: str, steps: int, batch_size: int) -> None:
    """Runs in the process of alkd_jax."""
    import jax

    import alkd_jax as alkd

    data = splits(path)
    train, validation, test = (alkd.Sessions(**data[name]) for name in ("train", "validation", "test"))
    model = alkd.models.create("fpmc", num_items=data["num_items"], dim=10)
    options: dict[str, Any] = {"batch_size": batch_size, "max_steps": steps, "patience": 10**9}
    fitted = alkd.training.fit(jax.random.key(0), model, train, validation, **options)
    [out] = alkd.evaluation.evaluate_seeds(model, fitted.params, test)
    report(out.metrics["recall@10"])


def run_torch(path: str, steps: int, batch_size: int) -> None:
    """Runs in the process of the PyTorch peer, which never imports JAX."""
    data = splits(path)
    train, validation, test = (types.SimpleNamespace(**data[name]) for name in ("train", "validation", "test"))
    rng, shape = np.random.default_rng(0), (data["num_items"] + 1, 10)
    tables = {
        name: 0.01 * rng.normal(size=shape).astype(np.float32) for name in ("input_embedding", "output_embedding")
    }
    peer: Any = peers_torch.Peer("fpmc", {"params": tables}, train)  # type: ignore[arg-type]
    best_recall, best_params = -1.0, {}
    for _ in range(0, steps, 20):
        peer.train_steps(min(20, steps), batch_size)
        recall = peer.recall(validation, 25)
        if recall > best_recall:
            best_recall, best_params = recall, {name: leaf.detach().clone() for name, leaf in peer.params.items()}
    peer.params = best_params
    report(peer.recall(test, 10))


def report(recall: float) -> None:
    """Prints the CPU time and the peak memory of this process since its start."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"cpu_s": time.process_time(), "peak_mib": peak, "recall@10": recall}))


def child(which: str, path: pathlib.Path, steps: int, batch_size: int, cache: pathlib.Path | None) -> dict[str, float]:
    """Runs one candidate in a process of its own."""
    environment = dict(os.environ, JAX_ENABLE_COMPILATION_CACHE="false" if cache is None else "true")
    if cache is not None:
        settings = {"MIN_COMPILE_TIME_SECS": "0", "MIN_ENTRY_SIZE_BYTES": "-1"}
        environment |= {f"JAX_PERSISTENT_CACHE_{name}": value for name, value in settings.items()}
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    code = _CODE.format(package=__package__, which=which, path=str(path), steps=steps, batch_size=batch_size)
    command = [sys.executable, "-c", code]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(completed.stdout.splitlines()[-1])


def main(bench: Bench) -> None:
    """Generates the data and runs the candidates."""
    from . import synthetic_sessions

    num_train, num_test, num_items = (
        synthetic_sessions.SMOKE["smoke"] if bench.smoke else synthetic_sessions.SIZES["ML"]
    )
    steps, batch_size = (4, 64) if bench.smoke else (1000, 1024)
    reports: dict[str, list[dict[str, float]]] = {}

    def runner(label: str, run: Callable[[], dict[str, float]]) -> Callable[[], None]:
        return lambda: reports.setdefault(label, []).append(run())

    with tempfile.TemporaryDirectory() as folder:
        path, cache = pathlib.Path(folder) / "data.npz", pathlib.Path(folder) / "cache"
        split_sizes = {"train": num_train, "validation": num_test, "test": num_test}
        arrays: dict[str, np.ndarray] = {}
        for seed, (name, num) in enumerate(split_sizes.items()):
            sessions = synthetic_sessions.random_sessions(num, num_items, seed=seed)
            arrays |= {f"{name}.{part}": getattr(sessions, part) for part in ("items", "mask", "target", "session_id")}
        np.savez(path, allow_pickle=False, num_items=num_items, **arrays)
        run = functools.partial(child, path=path, steps=steps, batch_size=batch_size)
        candidates = {
            "alkd_jax": runner("alkd_jax", lambda: run("run_alkd_jax", cache=None)),
            "alkd_jax, cached": runner("alkd_jax, cached", lambda: run("run_alkd_jax", cache=cache)),
        }
        if peers_torch.ABSENT is None:
            candidates["torch"] = runner("torch", lambda: run("run_torch", cache=None))
        # `runs` holds what each process reports of its own CPU time and memory; the first cached run fills the cache.
        about: dict[str, Any] = {"what": "FPMC, width 10", "steps": steps, "items": num_items, "runs": reports}
        compare("cold_run", candidates, bench, peers={"torch": peers_torch.ABSENT or peers_torch.version()}, **about)


if __name__ == "__main__":
    run_command(main, Bench, "cold_run", __doc__)
