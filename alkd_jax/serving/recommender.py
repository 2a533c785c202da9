"""A shipped student in NumPy, which recommends raw item ids and titles. This module loads without JAX.

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

from alkd_jax.checks import check_at_least
from alkd_jax.serving import manifest, numpy_encoders

_FORMER_NAMES = {"meeting_kernel": "interaction_kernel"}
"""Former name of a parameter in shipped folders → its name today."""


class Recommendation(NamedTuple):
    """One recommended item.

    Attributes:
        item_id: its raw id in the source data.
        title: its title, empty where the source has none.
        score: higher is better; scores are comparable within one list only.
    """

    item_id: str
    title: str
    score: float


class SessionItems(NamedTuple):
    """A session as item numbers.

    Attributes:
        items: the known items, in ``1..num_items``, in time order.
        unknown: number of ids that are not in the catalogue.
    """

    items: tuple[int, ...]
    unknown: int


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """A student with its catalogue. It is immutable, so threads can share it.

    Attributes:
        backbone: one of `alkd_jax.serving.numpy_encoders.OPTIONS`.
        options: the options of that backbone, without those that affect training only.
        arrays: its parameters, float32.
        item_ids: ``num_items + 1`` raw ids; the first is empty.
        titles: ``num_items + 1`` titles; the first is empty.
        length: L, the number of most recent items that the student reads.
        version: SHA-256 that identifies the shipped student; empty for one that was not read from a folder.
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
        """Reads config, weights and catalogue of a folder that :func:`alkd_jax.serving.export.save` wrote.

        Args:
            folder: the folder.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: a file was changed, or its content is invalid.
        """
        path = pathlib.Path(folder)
        config, version = manifest.read_config(path)
        try:
            numpy_encoders.check_options(config.backbone, config.options, dim=config.dim)
        except ValueError as error:
            raise ValueError(f"{path / manifest.CONFIG}: {error}") from error
        arrays = {_FORMER_NAMES.get(name, name): array for name, array in read_arrays(path, config).items()}
        item_ids, titles = manifest.read_items(path, config)
        return cls(config.backbone, config.options, arrays, item_ids, titles, config.length, version)

    @property
    def num_items(self) -> int:
        """V, the number of items in the catalogue."""
        return len(self.item_ids) - 1

    @functools.cached_property
    def item_embeddings(self) -> Float32[np.ndarray, "V D"]:
        """The table Y that scores items; row 0 is padding."""
        table = numpy_encoders.item_embeddings(self.backbone, self.options, self.arrays)
        # In Fortran order, in which a product with one session vector reads memory sequentially.
        return np.asfortranarray(table)

    @functools.cached_property
    def _item_numbers(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.item_ids) if number}

    def lookup(self, session: Sequence[str]) -> SessionItems:
        """Converts the raw ids of a session to item numbers; unknown ids are skipped and counted.

        Args:
            session: raw ids, oldest first.

        Raises:
            ValueError: the session is not a sequence of strings.
        """
        if isinstance(session, str) or not isinstance(session, Sequence):
            raise ValueError(f"type of session is {type(session).__name__}; expected a list of item ids")
        for item_id in session:
            if not isinstance(item_id, str):
                raise ValueError(f"an item id in session is {item_id!r}; expected strings")
        known = tuple(self._item_numbers[item_id] for item_id in session if item_id in self._item_numbers)
        return SessionItems(known, len(session) - len(known))

    def recommend(self, session: Sequence[str], k: int = 10) -> list[Recommendation]:
        """Returns the k best items for a session, without the items of the session.

        The student reads the most recent L known items, repeated items included. Unknown ids are skipped;
        :meth:`lookup` counts them. A session without a known item raises an error. Popular items as an answer would
        look personalized, and would hide that the ids are from another catalogue; a caller that wants such a fallback
        catches the error.

        Args:
            session: raw ids, oldest first.
            k: list length, at least 1; the list is shorter if fewer items remain.

        Returns:
            Best first, ties to the lower item number.

        Raises:
            ValueError: no id is known, the session is not a sequence of strings, or k is below 1.
        """
        known = self.lookup(session)
        if not known.items:
            raise ValueError(
                f"number of known ids in session is 0 of {len(session)}; expected at least 1 item of the catalogue"
            )
        return self.rank(known.items, k)

    def rank(self, items: Sequence[int], k: int = 10) -> list[Recommendation]:
        """:meth:`recommend` for a session as item numbers, see :meth:`lookup`.

        Args:
            items: item numbers, oldest first; at least one.
            k: list length, at least 1.

        Raises:
            ValueError: there is no item, a number is not in ``1..num_items``, or k is below 1.
        """
        if not items or min(items) < 1 or max(items) > self.num_items:
            raise ValueError(f"items are {list(items)[:5]}; expected at least one, in 1..{self.num_items}")
        recent = items[-self.length :]
        model_input = np.zeros((1, self.length), np.int32)
        model_input[0, : len(recent)] = recent
        best, ids = self.top_k(model_input, k, exclude=np.asarray([items], np.int32))
        return [
            Recommendation(self.item_ids[item], self.titles[item], score)
            for item, score in zip(ids[0].tolist(), best[0].tolist(), strict=True)
            if item > 0
        ]

    def top_k(
        self, items: Int[np.ndarray, "B L"], k: int, *, exclude: Int[np.ndarray, "B M"]
    ) -> tuple[Float32[np.ndarray, "B K"], Int32[np.ndarray, "B K"]]:
        """Returns the exact k best items of the whole catalogue for many sessions, as `alkd_jax.scoring.top_k` does.

        Args:
            items: ``[B, L]``, left-aligned, in time order, 0 after the last; L as in training.
            k: list length, at least 1.
            exclude: ``[B, M]`` items that are never returned; duplicates and 0 have no effect.

        Returns:
            ``(scores, ids)``, best first, ties to the lower item number; −inf and −1 where fewer than k items remain.

        Raises:
            ValueError: k is below 1.
        """
        k = operator.index(k)
        check_at_least(1, k=k)
        vectors = numpy_encoders.encode(self.backbone, self.options, self.arrays, items)
        scores = numpy_encoders.scores(vectors, self.item_embeddings)
        np.put_along_axis(scores, exclude, -np.inf, axis=1)
        scores[:, 0] = -np.inf
        best = np.full((len(items), k), -np.inf, np.float32)
        ids = np.full((len(items), k), -1, np.int32)
        for row, row_scores in enumerate(scores):
            top = _top_k_positions(row_scores, k)
            ids[row, : len(top)], best[row, : len(top)] = top, row_scores[top]
        return best, ids


def _top_k_positions(scores: Float32[np.ndarray, " V"], k: int) -> Int[np.ndarray, " K"]:
    """Returns the positions of the k largest scores above −inf, ties to the lower position; a NaN counts as −inf."""
    if np.isnan(scores.max()):
        scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    if k < len(scores):
        # All scores equal to the k-th largest are candidates; a partition alone would choose among them arbitrarily.
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def read_arrays(path: pathlib.Path, config: manifest.Config) -> dict[str, Float32[np.ndarray, "..."]]:
    """Reads the weights of a shipped student.

    Args:
        path: the folder.
        config: its config, with valid options.

    Returns:
        Parameter name, as in the file, → array in float32.

    Raises:
        FileNotFoundError: the file of the weights is missing.
        ValueError: the file was changed, is damaged, or contains other arrays than those of this student.
    """
    import safetensors
    import safetensors.numpy

    file = path / manifest.WEIGHTS
    content = manifest.read_checked(path, config, manifest.WEIGHTS)
    try:
        stored_arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: damaged: {error}") from error
    sizes = {"num_items": config.num_items, "dim": config.dim}
    expected = numpy_encoders.parameter_shapes(config.backbone, config.options, **sizes)
    stored_names = {_FORMER_NAMES.get(name, name): name for name in stored_arrays}
    if stored_names.keys() != expected.keys() or len(stored_names) != len(stored_arrays):
        raise ValueError(f"{file}: arrays are {sorted(stored_arrays)}; expected {sorted(expected)}"[:500])
    arrays = {}
    for current_name, shape in expected.items():
        name = stored_names[current_name]
        array = stored_arrays[name]
        if array.shape != shape or array.dtype.name != config.dtype:
            raise ValueError(f"{file}: {name} is {array.dtype} {array.shape}; expected {config.dtype} {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{file}: {name} has a number that is not finite; expected finite numbers")
        arrays[name] = array.astype(np.float32)
    return arrays
