"""A shipped student that answers with item ids and titles, in plain NumPy: this module loads without JAX.

from alkd_jax.serving.recommender import Recommender
student = Recommender.load("student")
student.recommend(["2571", "1196"], k=10)
"""

import dataclasses
import functools
import operator
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from alkd_jax.serving import manifest as shipped
from alkd_jax.serving import numpy_encoders


class Recommendation(NamedTuple):
    """One recommended item.

    Attributes:
        item_id: the identifier the source gave it.
        title: empty where the source had none.
        score: higher is better; comparable within one list only.
    """

    item_id: str
    title: str
    score: float


class Lookup(NamedTuple):
    """A session by item number.

    Attributes:
        items: the known ones, in ``1..num_items``, in time order.
        unknown: how many ids the catalogue does not have.
    """

    items: tuple[int, ...]
    unknown: int


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """A student with its catalogue; never changes, so threads may share one.

    Attributes:
        backbone: one of `alkd_jax.serving.numpy_encoders.OPTIONS`.
        options: all of that backbone's that matter after training.
        arrays: its parameters, float32.
        item_ids: ``num_items + 1`` identifiers of the source; the first is empty.
        titles: likewise.
        length: L, how many of the most recent items it reads.
        version: SHA-256 that names the shipped student; empty for one that was not read from a folder.
    """

    backbone: str
    options: Mapping[str, Any]
    arrays: Mapping[str, Float32[np.ndarray, "..."]]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    length: int
    version: str = ""

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Recommender":
        """Reads what :func:`alkd_jax.serving.export.save` wrote: config, weights and catalogue, not the compiled forms.

        Raises:
            FileNotFoundError: the folder or a file of it is missing.
            ValueError: a file was changed, or is not what it should be.
        """
        path = pathlib.Path(folder)
        config, version = shipped.read_config(path)
        try:
            numpy_encoders.check_options(config.backbone, config.options, dim=config.dim)
        except ValueError as error:
            raise ValueError(f"{path / shipped.CONFIG}: {error}") from error
        arrays = read_arrays(path, config)
        item_ids, titles = shipped.read_items(path, config)
        return cls(config.backbone, config.options, arrays, item_ids, titles, config.length, version)

    @property
    def num_items(self) -> int:
        """The catalogue's size V."""
        return len(self.item_ids) - 1

    @functools.cached_property
    def item_embeddings(self) -> Float32[np.ndarray, "V D"]:
        """The table Y that scores items; row 0 is padding."""
        table = numpy_encoders.item_embeddings(self.backbone, self.options, self.arrays)
        # By column, which a product with one session reads in order.
        return np.asfortranarray(table)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.item_ids) if number}

    def lookup(self, session: Sequence[str]) -> Lookup:
        """Turns a session's ids into item numbers; unknown ids are left out and counted.

        Args:
            session: ids of the source, oldest first.

        Raises:
            ValueError: the session is not a sequence of strings.
        """
        if isinstance(session, str) or not isinstance(session, Sequence):
            raise ValueError(f"session is {type(session).__name__}; expected a list of item ids")
        for item_id in session:
            if not isinstance(item_id, str):
                raise ValueError(f"session has {item_id!r}; expected item ids as strings")
        found = tuple(self._numbers[item_id] for item_id in session if item_id in self._numbers)
        return Lookup(found, len(session) - len(found))

    def recommend(self, session: Sequence[str], k: int = 10) -> list[Recommendation]:
        """The k best items for a session, none of them in it.

        The most recent L known items are read, repeats as they come; all known ones are left out of the list. Ids that
        the catalogue does not have are skipped; :meth:`lookup` counts them. A session without a known item is an error
        and not answered with popular items: those look personal, and would hide that ids come from another catalogue.
        Whoever wants a fallback catches it.

        Args:
            session: ids of the source, oldest first.
            k: list length, at least 1; the list is shorter where the catalogue is.

        Returns:
            Best first, ties to the lower item number.

        Raises:
            ValueError: no id is known, the session is not a sequence of strings, or k is below 1.
        """
        found = self.lookup(session)
        if not found.items:
            told = "the session is empty" if not session else f"none of the session's {len(session)} items is known"
            raise ValueError(f"{told}; expected at least one item of the catalogue")
        return self.rank(found.items, k)

    def rank(self, items: Sequence[int], k: int = 10) -> list[Recommendation]:
        """:meth:`recommend` for item numbers, as :meth:`lookup` gives them; at least one.

        Raises:
            ValueError: there is no item, a number is not in ``1..num_items``, or k is below 1.
        """
        if not items or min(items) < 1 or max(items) > self.num_items:
            raise ValueError(f"items are {list(items)[:5]}; expected some, in 1..{self.num_items}")
        recent = items[-self.length :]
        read = np.zeros((1, self.length), np.int32)
        read[0, : len(recent)] = recent
        best, ids = self.top_k(read, k, exclude=np.asarray([items], np.int32))
        return [
            Recommendation(self.item_ids[item], self.titles[item], score)
            for item, score in zip(ids[0].tolist(), best[0].tolist(), strict=True)
            if item > 0
        ]

    def top_k(
        self, items: Int[np.ndarray, "B L"], k: int, *, exclude: Int[np.ndarray, "B M"]
    ) -> tuple[Float32[np.ndarray, "B K"], Int32[np.ndarray, "B K"]]:
        """The k best items of the whole catalogue for many sessions, exactly, as `alkd_jax.scoring.top_k` gives them.

        Args:
            items: left-aligned, in time order, 0 after the last; as many columns as were read in training.
            k: list length, at least 1.
            exclude: items never returned; repeats and 0 are harmless.

        Returns:
            Scores, best first, ties to the lower number; and item numbers. Where fewer than k remain, −inf and −1.

        Raises:
            ValueError: k is below 1.
        """
        k = operator.index(k)
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        vectors = numpy_encoders.encode(self.backbone, self.options, self.arrays, items)
        found = numpy_encoders.scores(vectors, self.item_embeddings)
        np.put_along_axis(found, exclude, -np.inf, axis=1)
        found[:, 0] = -np.inf
        best = np.full((len(items), k), -np.inf, np.float32)
        ids = np.full((len(items), k), -1, np.int32)
        for row, own in enumerate(found):
            top = _best(own, k)
            ids[row, : len(top)], best[row, : len(top)] = top, own[top]
        return best, ids


def _best(scores: Float32[np.ndarray, " V"], k: int) -> Int[np.ndarray, " K"]:
    """Places of the k largest, ties to the lower place; fewer where fewer are above −inf (a NaN is not)."""
    if np.isnan(scores.max()):
        scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    if k < len(scores):
        # The k-th largest first: whoever equals it is a candidate, wherever a partition would have put it.
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def read_arrays(path: pathlib.Path, config: shipped.Config) -> dict[str, Float32[np.ndarray, "..."]]:
    """Reads the weights of a shipped student.

    Args:
        path: its folder.
        config: what is in it; options checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it was changed, is damaged, or holds other arrays than this student's.
    """
    import safetensors
    import safetensors.numpy

    file = path / shipped.WEIGHTS
    data = shipped.read_checked(path, config, shipped.WEIGHTS)
    try:
        stored = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: damaged: {error}") from error
    sizes = {"num_items": config.num_items, "dim": config.dim}
    expected = numpy_encoders.parameter_shapes(config.backbone, config.options, **sizes)
    if stored.keys() != expected.keys():
        raise ValueError(f"{file}: has arrays {sorted(stored)}, expected {sorted(expected)}"[:500])
    arrays = {}
    for name, shape in expected.items():
        array = stored[name]
        if array.shape != shape or array.dtype.name != config.dtype:
            raise ValueError(f"{file}: {name} is {array.dtype} {array.shape}, expected {config.dtype} {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} has numbers that are not finite")
        arrays[name] = array.astype(np.float32)
    return arrays
