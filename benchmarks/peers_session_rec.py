"""session-rec's own SR, V-SKNN and STAN on the same sessions, from a checkout of that repository.

It is no package, so its files are loaded by path: `algorithms/baselines/sr.py` and `algorithms/knn/` of the checkout.
They need `pip install pandas pympler`, and a name that NumPy had until 2.3, which is set for the whole process. Loading
the files runs their code; a checkout is to be one that you trust.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

import alkd_jax as alkd
from alkd_jax.baselines import Histories

CLASSES = {
    "sr": ("algorithms/baselines/sr.py", "SequentialRules"),
    "vsknn": ("algorithms/knn/vsknn.py", "VMContextKNN"),
    "stan": ("algorithms/knn/stan.py", "STAN"),
}
"""Our name of a method → file in the checkout and name of the class."""

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "sr": {"steps": 10, "weighting": "div", "pruning": 20},
    "vsknn": {"k": 100, "sample_size": 1000, "weighting": "div", "weighting_score": "div"},
    "stan": {"k": 100, "sample_size": 5000, "lambda_spw": 1.02, "lambda_snh": 5.0, "lambda_inh": 2.05},
}
"""Options of both: those that are the default of ours."""


class Peer:
    """One of session-rec's methods, which scores one item of a session after another.

    Args:
        checkout: folder of the repository.
        name: a key of :data:`CLASSES`.
        sequences: training sessions with times.
        num_items: V, size of the catalogue.
    """

    def __init__(self, checkout: pathlib.Path, name: str, sequences: alkd.Sequences, num_items: int) -> None:
        file, class_name = CLASSES[name]
        spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, checkout / file)
        if spec is None or spec.loader is None or not (checkout / file).is_file():
            raise ValueError(f"session_rec is {checkout}; expected a checkout of session-rec, with {file}")
        if not hasattr(np, "in1d"):
            vars(np)["in1d"] = np.isin
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.create = functools.partial(getattr(module, class_name), **OPTIONS[name])
        self.method = self.create()
        self.catalogue = np.arange(1, num_items + 1)
        self.num_sessions = 0
        pandas = importlib.import_module("pandas")
        lengths = np.diff(np.asarray(sequences.offsets))
        clicks = {
            "SessionId": np.repeat(np.arange(len(lengths)), lengths),
            "ItemId": np.asarray(sequences.items),
            "Time": np.asarray(sequences.time) / 1000,
        }
        self.clicks = pandas.DataFrame(clicks)

    def fit(self) -> None:
        """Makes the method anew and counts the training sessions, from a table that exists already."""
        self.method = self.create()
        self.method.fit(self.clicks)

    def scores(self, histories: Histories) -> Float[np.ndarray, "B V"]:
        """Returns the scores of all items after the last item of each history.

        The method scores after every item, and finds neighbors only where it scores. So a history that continues the
        one before it by an item, as :func:`prefixes` has them, takes one call, and another one a call for each item.
        """
        found = np.empty((len(histories), len(self.catalogue)))
        times = np.zeros(len(histories)) if histories.time is None else histories.time / 1000
        previous: list[int] = []
        for row, (items, mask, time) in enumerate(zip(histories.items, histories.mask, times, strict=True)):
            history = items[mask].tolist()
            continues = bool(previous) and history[:-1] == previous
            self.num_sessions += not continues  # The method starts a new session where the number changes.
            for item in history[-1:] if continues else history:
                scores = self.method.predict_next(self.num_sessions, item, self.catalogue, timestamp=time)
            found[row] = scores.to_numpy()
            previous = history
        return found


def prefixes(histories: Histories) -> Histories:
    """Returns the histories after their first item, after their second, and so on."""
    rows = [items[mask].tolist() for items, mask in zip(histories.items, histories.mask, strict=True)]
    times = np.zeros(len(rows), np.int64) if histories.time is None else histories.time
    cut = [(row[:end], time) for row, time in zip(rows, times, strict=True) for end in range(1, len(row) + 1)]
    return Histories.from_rows([row for row, _ in cut], np.array([time for _, time in cut], np.int64))
