"""What a student costs where it answers: the bytes of its files, the bytes in memory, and the time for a session."""

import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.serving import manifest
from alkd_jax.serving.recommender import Recommender
from alkd_jax.types import Dataset

ANSWERING_FILES = (manifest.CONFIG, manifest.WEIGHTS)
"""Files that are needed to answer, raw ids and shown titles left out."""

NUM_TIMED = 200
"""Number of test sessions that are answered one at a time."""


def costs_of_folder(folder: pathlib.Path, dataset: Dataset) -> dict[str, Any]:
    """Returns "bytes", "resident_bytes" and "us_per_session" of a shipped student, loaded from its folder."""
    student = Recommender.load(folder)
    seconds = seconds_per_session(lambda items: student.rank(items, 10), test_sessions(dataset))
    return {
        "bytes": sum((folder / name).stat().st_size for name in ANSWERING_FILES),
        "resident_bytes": student.resident_bytes,
        "us_per_session": 1e6 * seconds,
    }


def costs_of_method(method: baselines.Method, dataset: Dataset) -> dict[str, Any]:
    """Returns "resident_bytes" and "us_per_session" of a training-free method.

    The bytes are those of the counts and matrices that the method made of the training sessions, after it answered.
    """
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    scorer = method(counts)

    def answer(items: list[int]) -> None:
        scores = baselines.break_ties(counts, scorer(baselines.Histories.from_rows([items])))[0]
        scores[items] = -np.inf
        baselines.best_items(scores, min(10, dataset.num_items))

    seconds = seconds_per_session(answer, test_sessions(dataset)[: NUM_TIMED // 4])
    held = [value for name, value in vars(counts).items() if name != "sequences"]
    arrays = [counts.sequences.items, counts.sequences.offsets, *held]
    return {"resident_bytes": sum(map(array_bytes, arrays)), "us_per_session": 1e6 * seconds}


def array_bytes(array: Any) -> int:
    """Returns the bytes of a dense or a sparse array, 0 of anything else."""
    if isinstance(array, csr_array):
        return int(array.data.nbytes + array.indices.nbytes + array.indptr.nbytes)
    return int(getattr(array, "nbytes", 0))


def test_sessions(dataset: Dataset) -> list[list[int]]:
    """Returns the items of the test sessions that are timed."""
    rows, masks = (np.asarray(array)[:NUM_TIMED] for array in (dataset.test.items, dataset.test.mask))
    return [row[mask].tolist() for row, mask in zip(rows, masks, strict=True)]


def seconds_per_session(answer: Callable[[list[int]], Any], sessions: Sequence[list[int]]) -> float:
    """Returns the median time of an answer, one session at a time, after some that are not counted."""
    for items in sessions[:5]:
        answer(items)
    seconds = []
    for items in sessions:
        start = time.perf_counter()
        answer(items)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
