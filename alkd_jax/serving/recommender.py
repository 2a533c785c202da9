"""A shipped student in NumPy, which recommends raw item ids and titles. This module loads without JAX.

from alkd_jax.serving.recommender import Recommender
student = Recommender.load("student")
student.recommend(["2571", "1196"], k=10)
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8

from alkd_jax.checks import check_count, check_one_of, check_span
from alkd_jax.errors import shown
from alkd_jax.serving import hub, manifest, numpy_encoders, packed
from alkd_jax.serving.numpy_lists import left_aligned, top_k_positions
from alkd_jax.serving.weights import current_names, read_arrays

_PROBE_LENGTH = 100


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
        backbone: one of `alkd_jax.serving.numpy_encoders.OPTIONS` or `alkd_jax.serving.packed.PACKED_STUDENTS`.
        options: the options of that backbone, without those that affect training only.
        arrays: its parameters, float32; of a packed student its bytes.
        item_ids: ``num_items + 1`` raw ids; the first is empty.
        titles: ``num_items + 1`` titles; the first is empty.
        length: L, the number of most recent items that the student reads.
        version: SHA-256 that identifies the shipped student; empty for one that was not read from a folder.
        folder: from which it was read; None for any other.

    Raises:
        ValueError: the parameters, ids or titles are not those of one student.
    """

    backbone: str
    options: Mapping[str, Any]
    arrays: Mapping[str, Float32[np.ndarray, "..."] | UInt8[np.ndarray, "..."]]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    length: int
    version: str = ""
    folder: pathlib.Path | None = None

    def __post_init__(self) -> None:
        for name, column in (("item_ids", self.item_ids), ("titles", self.titles)):
            if not isinstance(column, tuple) or not all(isinstance(entry, str) for entry in column):
                raise ValueError(f"{name} is {shown(column)}; expected a tuple of strings")
        if len(self.item_ids) < 2 or len(self.item_ids) != len(self.titles):
            raise ValueError(
                f"number of item_ids is {len(self.item_ids)}, of titles {len(self.titles)}; expected V + 1 of each"
            )
        if self.is_packed:
            packed.check_options(self.backbone, self.options, num_items=self.num_items)
            packed.check_arrays(self.backbone, self.options, self.arrays, num_items=self.num_items)
            return
        dim = numpy_encoders.width(self.backbone, self.options, self.arrays)
        numpy_encoders.check_options(self.backbone, self.options, dim=dim)
        numpy_encoders.check_arrays(
            self.backbone, self.options, self.arrays, num_items=self.num_items, dim=dim, dtype="float32"
        )
        numpy_encoders.check_length(self.backbone, self.options, dim=dim, length=self.length)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Recommender":
        """Reads config, weights and catalogue of a folder that :func:`alkd_jax.serving.export.save` wrote.

        Args:
            folder: the folder.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: a file was changed, its content is invalid, or scores are not finite.
        """
        # A link to the folder may lead to another one before all files are read.
        path = pathlib.Path(folder).resolve()
        config, version = manifest.read_config(path)
        arrays = current_names(read_arrays(path, config))
        item_ids, titles = manifest.read_items(path, config)
        try:
            form: packed.Resident = (config.backbone, config.options, arrays)
            if config.backbone in packed.PACKED_STUDENTS:
                form = packed.resident_form(*form, num_items=config.num_items)
            student = cls(*form, item_ids, titles, config.length, version, path)
            student.check_scores()
        except ValueError as error:
            raise ValueError(f"{path / manifest.WEIGHTS}: {error}") from error
        return student

    @classmethod
    def from_hub(
        cls, repo_id: str, *, revision: str | None = None, cache: str | os.PathLike[str] | None = None
    ) -> "Recommender":
        """Reads a student from the Hugging Face Hub, as untrusted as any folder, see :meth:`load`.

        Args:
            repo_id: "OWNER/NAME" of the repository.
            revision: branch, tag or commit; a commit cannot be changed afterwards. By default the main branch.
            cache: folder of downloaded files; by default that of `huggingface_hub`.

        Raises:
            ModuleNotFoundError: `huggingface_hub` is not installed.
            FileNotFoundError: the repository holds no student.
            ValueError: there is no such repository, or as :meth:`load`.
        """
        with hub.downloaded(repo_id, revision=revision, cache=cache) as folder:
            return dataclasses.replace(cls.load(folder), folder=None)

    def push_to_hub(self, repo_id: str, *, revision: str | None = None, private: bool = True) -> str:
        """Uploads the student's folder, with its model card, to the Hugging Face Hub.

        Args:
            repo_id: "OWNER/NAME" of the repository, which is made if there is none.
            revision: branch to upload to; by default the main one.
            private: whether a new repository is private: the terms of the data may forbid a public catalogue.

        Returns:
            The address of the commit.

        Raises:
            ModuleNotFoundError: `huggingface_hub` is not installed.
            ValueError: the student was not read from a folder, the folder was changed since, or the hub refused it.
        """
        if self.folder is None:
            raise ValueError("the student has no folder; expected one that Recommender.load read")
        return hub.upload(self.folder, repo_id, version=self.version, revision=revision, private=private)

    @property
    def num_items(self) -> int:
        """V, the number of items in the catalogue."""
        return len(self.item_ids) - 1

    @property
    def is_packed(self) -> bool:
        """Whether this is a fixed table or stored sessions in few bits, which have no session vectors."""
        return self.backbone in packed.PACKED_STUDENTS

    @property
    def resident_bytes(self) -> int:
        """Bytes held while sessions are answered, raw ids and titles left out: arrays, and what is made of them."""
        own = sum(array.nbytes for array in self.arrays.values())
        if self.is_packed:
            return own + self._packed_scorer.nbytes
        shared = any(np.shares_memory(self.item_embeddings, array) for array in self.arrays.values())
        return own + (0 if shared else self.item_embeddings.nbytes)

    @functools.cached_property
    def _packed_scorer(self) -> packed.PackedScorer:
        kind = packed.PACKED_STUDENTS[self.backbone]
        return kind.scorer(self.options, self.arrays, self.num_items)

    @functools.cached_property
    def item_embeddings(self) -> Float32[np.ndarray, "V D"]:
        """The table Y that scores items; row 0 is padding.

        Raises:
            ValueError: the student is a packed one, without such a table.
        """
        self._check_vectors()
        table = numpy_encoders.item_embeddings(self.backbone, self.options, self.arrays)
        # In Fortran order, in which a product with one session vector reads memory sequentially.
        return np.asfortranarray(table)

    @functools.cached_property
    def _item_numbers(self) -> dict[str, int]:
        return {item_id: number for number, item_id in enumerate(self.item_ids) if number}

    def check_scores(self) -> None:
        """Scores sessions of the items with the largest numbers: finite parameters may overflow in a score.

        Raises:
            ValueError: a score is not finite, or the arrays of a packed student say what cannot be.
        """
        if self.is_packed:
            _ = self._packed_scorer
            return
        largest = {
            int(np.abs(table).max(1)[1:].argmax()) + 1
            for table in (self.arrays["input_embedding"], self.item_embeddings)
        }
        for item in sorted(largest | {1}):
            for times in (1, min(self.length, _PROBE_LENGTH)):
                with np.errstate(all="ignore"):
                    scores = self._scores(np.full((1, times), item, np.int32))
                if not np.isfinite(scores[:, 1:]).all():
                    raise ValueError(f"scores of a session of item {item} are not finite; expected smaller parameters")

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
                raise ValueError(f"an item id in session is {shown(item_id)}; expected strings")
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
            ValueError: no id is known, the session is not a sequence of strings, k is no whole number of at least 1, or
                the scores are not finite.
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
            ValueError: there is no item, one is no integer in ``1..num_items``, k is no whole number of at least 1, or
                the scores are not finite.
        """
        for item in items:
            if not _is_integer(item) or not 1 <= item <= self.num_items:
                raise ValueError(f"an item is {shown(item)}; expected integers in 1..{self.num_items}")
        if not len(items):
            raise ValueError(f"number of items is 0; expected at least one, in 1..{self.num_items}")
        check_count(1, k=k)
        return self._rank([items], k, seen="exclude")[0]

    def recommend_batch(
        self, sessions: Sequence[Sequence[str]], k: int = 10, *, seen: str = "exclude", batch_size: int = 256
    ) -> list[list[Recommendation]]:
        """:meth:`recommend` for many sessions, some hundreds at a time.

        A session without a known item has an empty list, because it says nothing about what the user wants.

        Args:
            sessions: raw ids of each session, oldest first.
            k: list length, at least 1; a list is shorter if fewer items remain.
            seen: "exclude" leaves out the known items of the session, "keep" ranks all items.
            batch_size: sessions scored at a time, which bounds the memory to ``batch_size · V`` scores.

        Returns:
            A list for each session, best first, ties to the lower item number.

        Raises:
            ValueError: a session is not a sequence of strings, an option is out of range, or scores are not finite.
        """
        check_one_of("seen", seen, ("exclude", "keep"))
        check_count(1, k=k, batch_size=batch_size)
        known = [self.lookup(session).items for session in sessions]
        found: list[list[Recommendation]] = [[] for _ in known]
        rows = [row for row, items in enumerate(known) if items]
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            for row, answer in zip(batch, self._rank([known[row] for row in batch], k, seen=seen), strict=True):
                found[row] = answer
        return found

    def encode(self, sessions: Sequence[Sequence[str]]) -> Float32[np.ndarray, "B *N D"]:
        """Returns the session vectors u, whose products with ``item_embeddings`` are the scores.

        Args:
            sessions: raw ids of each session, oldest first, of which the most recent L known ones are read.

        Returns:
            ``[B, D]``, or for late interaction a vector for each of the N items of the longest session.

        Raises:
            ValueError: there is no session, one has no known item or is not a sequence of strings, or the student is a
                packed one.
        """
        self._check_vectors()
        known = [self.lookup(session).items for session in sessions]
        for row, items in enumerate(known):
            if not items:
                raise ValueError(
                    f"number of known ids in session {row} is 0 of {len(sessions[row])}; expected at least 1"
                )
        if not known:
            raise ValueError("number of sessions is 0; expected at least 1")
        inputs = left_aligned([items[-self.length :] for items in known])
        return numpy_encoders.encode(self.backbone, self.options, self.arrays, inputs, length=self.length)

    def top_k(
        self, items: Int[np.ndarray, "B L"], k: int, *, exclude: Int[np.ndarray, "B M"]
    ) -> tuple[Float32[np.ndarray, "B K"], Int32[np.ndarray, "B K"]]:
        """Returns the exact k best items of the whole catalogue for many sessions, as `alkd_jax.scoring.top_k` does.

        Args:
            items: ``[B, N]``, left-aligned, in time order, 0 after the last; N is at most L.
            k: list length, at least 1.
            exclude: ``[B, M]`` items that are never returned; duplicates, 0 and negative numbers have no effect.

        Returns:
            ``(scores, ids)``, best first, ties to the lower item number; −inf and −1 where fewer than k items remain.

        Raises:
            ValueError: k is no whole number of at least 1, items have more than L columns, or an item is not in the
                catalogue.
        """
        check_count(1, k=k)
        if items.shape[1] > self.length:
            raise ValueError(f"number of columns of items is {items.shape[1]}; expected at most {self.length}")
        check_span("items", items, 0, self.num_items)
        exclude = np.maximum(exclude, 0)
        check_span("exclude", exclude, 0, self.num_items)
        return self._top_k(items, k, exclude)

    def _rank(self, sessions: Sequence[Sequence[int]], k: int, *, seen: str) -> list[list[Recommendation]]:
        inputs = left_aligned([items[-self.length :] for items in sessions])
        exclude = left_aligned([items if seen == "exclude" else () for items in sessions])
        best, ids = self._top_k(inputs, min(k, self.num_items), exclude)
        for items, (first, *_), (first_id, *_) in zip(sessions, best, ids, strict=True):
            num_excluded = len(set(items)) if seen == "exclude" else 0
            if first == np.inf or (first_id < 0 and num_excluded < self.num_items):
                raise ValueError(
                    f"scores of a session of {len(items)} items are not finite; expected smaller parameters"
                )
        return [
            [
                Recommendation(self.item_ids[item], self.titles[item], score)
                for item, score in zip(row_ids, row_best, strict=True)
                if item > 0
            ]
            for row_ids, row_best in zip(ids.tolist(), best.tolist(), strict=True)
        ]

    def _top_k(self, items: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.is_packed and len(items) == 1:
            found = self._packed_top_k(items[0], k, exclude[0])
            if found is not None:
                return found
        scores = self._scores(items)
        scores[np.arange(len(scores))[:, None], exclude] = -np.inf
        scores[:, 0] = -np.inf
        best = np.full((len(items), k), -np.inf, np.float32)
        ids = np.full((len(items), k), -1, np.int32)
        for row, row_scores in enumerate(scores):
            top = top_k_positions(row_scores, k)
            ids[row, : len(top)], best[row, : len(top)] = top, row_scores[top]
        return best, ids

    def _packed_top_k(self, items: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The best items of one session among those that it reaches; None where these are too few."""
        if self._packed_scorer.reached is None:
            return None
        ids, scores = self._packed_scorer.reached(items)
        if len(ids) < k:
            return None
        place = np.minimum(np.searchsorted(ids, exclude), len(ids) - 1)
        scores[place[ids[place] == exclude]] = -np.inf
        best = np.argsort(-scores, kind="stable")[:k]
        if not scores[best[-1]] > 0:
            return None
        return scores[best].astype(np.float32)[None], ids[best].astype(np.int32)[None]

    def _check_vectors(self) -> None:
        if self.is_packed:
            raise ValueError(f"backbone is {self.backbone}, which has no session vectors; expected a trained encoder")

    def _scores(self, items: Int[np.ndarray, "B N"]) -> Float[np.ndarray, "B V"]:
        if self.is_packed:
            return self._packed_scorer.scores(items)
        vectors = numpy_encoders.encode(self.backbone, self.options, self.arrays, items, length=self.length)
        return numpy_encoders.scores(vectors, self.item_embeddings)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
