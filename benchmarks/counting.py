"""Counting and linear methods by the number of items V and of training sessions N: time to fit and to score, memory.

    python -m benchmarks.counting --items 1000 4000 --sessions 5000 50000 --json FILE

A line is a pair of V and N. It has the CPU seconds to fit each method, also as a ratio to the yardstick's, the peak of
NumPy's arrays while it is fitted (the counts that it makes included) and while it scores a batch, and the time to score
all items for a batch of histories. Linear methods, which take V³ operations, are left out above `--linear-items`.
With `--session-rec CHECKOUT` that framework's own SR, V-SKNN and STAN are candidates. Sessions are then scored after
each of their items, and a line has the share of these histories for which both have the same scores.
"""

import dataclasses
import functools
import pathlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import METHODS

from . import peers_session_rec, synthetic_sessions
from .command_line import run_command
from .harness import Bench, compare, seconds

LINEAR = ("ease", "slis", "slit", "slist")
YARDSTICK = "item_knn"

_DAY = 86_400_000


@dataclasses.dataclass(frozen=True)
class Cells(Bench):
    """Options of this benchmark.

    Attributes:
        items: sizes of the catalogue V.
        sessions: numbers of training sessions N.
        histories: number of histories that are scored at a time.
        linear_items: the largest V with linear methods.
        methods: names of methods; by default all.
        session_rec: checkout of session-rec, whose code is run; by default it is not measured.
    """

    items: tuple[int, ...] = (1_000, 4_000)
    sessions: tuple[int, ...] = (5_000, 50_000)
    histories: int = 64
    linear_items: int = 5_000
    methods: tuple[str, ...] = ()
    session_rec: pathlib.Path | None = None


def training_sequences(num_sessions: int, num_items: int) -> alkd.Sequences:
    """Returns random sessions with the lengths of the released ones of ML, over 30 days."""
    sessions = synthetic_sessions.random_sessions(num_sessions, num_items)
    mask = np.column_stack([sessions.mask, np.ones(num_sessions, bool)])
    items = np.column_stack([sessions.items, sessions.target])[mask]
    offsets = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    start = np.arange(num_sessions, dtype=np.int64) * (30 * _DAY) // num_sessions
    return alkd.Sequences(items, offsets, np.repeat(start, mask.sum(axis=1)))


def fit(name: str, sequences: alkd.Sequences, num_items: int) -> baselines.Scorer:
    """Counts the sessions and fits a method with its default options."""
    return baselines.fit(name, sequences, num_items)


def peak_bytes(work: Callable[[], Any]) -> tuple[Any, int]:
    """Returns what a call returns and the peak of the memory that Python and NumPy took during it."""
    tracemalloc.start()
    result = work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def same_scores(ours: Float[np.ndarray, "B V1"], theirs: Float[np.ndarray, "B V"]) -> float:
    """Returns the share of histories whose scores, divided by the largest, agree to 1e-6."""
    # Where no item has a score theirs are 0 / 0.
    scaled = [
        scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-300)
        for scores in (ours[:, 1:], np.nan_to_num(theirs))
    ]
    return float(np.mean(np.abs(scaled[0] - scaled[1]).max(axis=1) < 1e-6))


def peers(bench: Cells, sequences: alkd.Sequences, num_items: int) -> dict[str, peers_session_rec.Peer]:
    """Returns session-rec's methods by our names; none where the options name no checkout."""
    if bench.session_rec is None:
        return {}
    classes = [name for name in peers_session_rec.CLASSES if not bench.methods or name in bench.methods]
    return {name: peers_session_rec.Peer(bench.session_rec, name, sequences, num_items) for name in classes}


def measure(bench: Cells, num_items: int, num_sessions: int) -> None:
    """Measures all methods on one pair of V and N."""
    sequences = training_sequences(num_sessions, num_items)
    queries = synthetic_sessions.random_sessions(bench.histories, num_items, seed=1)
    time = np.full(bench.histories, 31 * _DAY, np.int64)
    histories = baselines.Histories(np.asarray(queries.items), np.asarray(queries.mask), time)
    if bench.session_rec is not None:
        histories = peers_session_rec.prefixes(histories)
    asked = dict.fromkeys([YARDSTICK, *(bench.methods or METHODS)])
    names = [name for name in asked if name not in LINEAR or num_items <= bench.linear_items]
    candidates: dict[str, Callable[[], Any]] = {}
    about: dict[str, dict[str, float]] = {"fit_cpu_s": {}, "fit_peak_bytes": {}, "score_peak_bytes": {}}
    for name in names:
        work = functools.partial(fit, name, sequences, num_items)
        scorer, about["fit_peak_bytes"][name] = peak_bytes(work)
        about["fit_cpu_s"][name] = seconds(work)[1]
        # Counts that are made when they are first read are there from now on.
        scorer(histories)
        candidates[name] = functools.partial(scorer, histories)
        about["score_peak_bytes"][name] = peak_bytes(candidates[name])[1]
    same: dict[str, float] = {}
    for name, peer in peers(bench, sequences, num_items).items():
        label = f"session-rec {name}"
        about["fit_peak_bytes"][label] = peak_bytes(peer.fit)[1]
        about["fit_cpu_s"][label] = seconds(peer.fit)[1]
        candidates[label] = functools.partial(peer.scores, histories)
        theirs, about["score_peak_bytes"][label] = peak_bytes(candidates[label])
        same[name] = same_scores(candidates[name](), theirs)
    yardstick = max(about["fit_cpu_s"][YARDSTICK], 1e-9)
    about["fit_cpu_ratio"] = {name: value / yardstick for name, value in about["fit_cpu_s"].items()}
    facts: dict[str, Any] = {"items": num_items, "train_sessions": num_sessions, "same_scores": same, **about}
    compare("counting", candidates, bench, sessions_per_call=len(histories), **facts)


def main(bench: Bench) -> None:
    """Measures every pair of V and N."""
    cells = bench if isinstance(bench, Cells) else Cells(**dataclasses.asdict(bench))
    if bench.smoke:
        cells = dataclasses.replace(cells, items=(60,), sessions=(90,), histories=8)
    for num_items in cells.items:
        for num_sessions in cells.sessions:
            measure(cells, num_items, num_sessions)


if __name__ == "__main__":
    run_command(main, Cells, "counting", __doc__)
