"""Settles what the entries of a list mean together, and puts them into the order of their ranks."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

from alkd_jax.llm.entries import GRADE, Reading, UnclearError
from alkd_jax.llm.ordinals import outline_ranks

LIKELIHOOD = re.compile(
    r"\W*(?:(?:the|estimated|predicted|purchase|watch(?:ing)?|view(?:ing)?|click|next|relative)[\s_-]+)*"
    r"(?:probabilit(?:y|ies)|likelihoods?|chances?)\W*(?:\([^()a-z]*\)\W*)?",
    re.IGNORECASE,
)
"""Names of numbers of which more is better without doubt."""

_COST = re.compile(r"distance|cost|loss|penalt|error|rank|position|place|rang|tier|priorit", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class TextList:
    """One list in a text.

    Attributes:
        order: numbers of the candidates, best first, None for entries that name none.
        heading: the words before it.
        is_by_title: whether entries are known by their titles alone.
        is_numbered: whether a number leads its first entry.
    """

    order: list[int | None]
    heading: str
    is_by_title: bool = False
    is_numbered: bool = False

    @property
    def distinct(self) -> list[int]:
        """The candidates, each once."""
        return list(dict.fromkeys(number for number in self.order if number is not None))


def settle(readings: Sequence[Reading]) -> list[tuple[int | None, Reading]]:
    """Decides for each entry of a list which candidate it means.

    Returns:
        Of each entry, in the order of the text, the number of the candidate, or None where it names none.

    Raises:
        UnclearError: an entry has several meanings, and the other entries do not show which is meant.
    """
    certain: set[str] = set()
    for reading in readings:
        if len(reading.options) == 1 and not reading.several:
            certain |= reading.options.keys()
    if len({reading.prefix for reading in readings if reading.prefix}) > 1:
        # Words such as "fourth" in any language may number the entries.
        raise UnclearError("ambiguous entry")
    verified = sum(reading.is_verified for reading in readings)
    settled: list[tuple[int | None, Reading]] = []
    for reading in readings:
        numbers = set(reading.options.values())
        if reading.is_unclear:
            raise UnclearError("ambiguous entry")
        if reading.several and reading.options.keys() - {"label"}:
            fitting = {number for style, number in reading.options.items() if style in certain}
            if "label" in certain or len(fitting) != 1:
                raise UnclearError("ambiguous entry")
            settled.append((fitting.pop(), reading))
        elif reading.several:
            if verified and verified >= len(readings) / 2:
                raise UnclearError("ambiguous entry")
            settled += [(number, reading) for number in reading.several]
        elif len(numbers) > 1:
            fitting = {number for style, number in reading.options.items() if style in certain}
            if not certain and all(other.is_pure for other in readings):
                fitting = {reading.options["label"]}
            if len(fitting) != 1:
                raise UnclearError("ambiguous entry")
            settled.append((fitting.pop(), reading))
        else:
            settled.append((numbers.pop() if numbers else None, reading))
    return settled


def in_order(settled: Sequence[tuple[int | None, Reading]]) -> list[int | None]:
    """Returns the candidates of a list, best first: in the order of their ranks where these are given.

    Raises:
        UnclearError: the entries are numbered, but not as ranks are, or scores do not agree with the order.
    """
    if not settled:
        return []
    numbers = [number for number, _ in settled]
    before = [None if set(reading.options) == {"title"} else reading.rank for number, reading in settled]
    outline = outline_ranks([reading.outline for _, reading in settled])
    if any(outline) and not any(before):
        before = list(outline)
    after = [reading.rank_after for _, reading in settled]
    called = any(reading.is_rank for _, reading in settled)
    if _are_label_numbers(after, numbers):
        if not _is_permutation(after):
            after = [None] * len(after)
        elif not called and after != sorted(after, key=lambda rank: rank or 0):
            raise UnclearError("ranks")
    scores = [reading.score for _, reading in settled]
    _check_numbers([reading for _, reading in settled])
    by_lead = _sorted_by(before, is_called=False, may_repeat=True)
    by_rank = None
    known = [rank for rank in after if rank is not None]
    if not called and 2 <= len(known) < len(after) <= 2 * len(known):
        raise UnclearError("ranks")
    if called or (None not in after and len(after) > 1):
        by_rank = _sorted_by(after, is_called=called, may_repeat=False)
    if by_lead is not None and by_rank is not None and by_lead != by_rank:
        if by_rank != list(range(len(numbers))) and by_lead != list(range(len(numbers))):
            raise UnclearError("ranks")
        if None not in before and len(set(before)) == len(before):
            raise UnclearError("ranks")
    order = by_rank or by_lead
    if order is None and any(score is not None for score in scores):
        given = [score for score in scores if score is not None]
        if len(set(given)) == len(scores) and _is_by_likelihood(settled):
            return [numbers[n] for n in sorted(range(len(given)), key=lambda n: -given[n])]
        if len(given) < len(scores) or given != sorted(given, reverse=True):
            raise UnclearError("scores")
    return [numbers[n] for n in order] if order else numbers


def _check_numbers(readings: Sequence[Reading]) -> None:
    """Raises UnclearError where numbers of an unknown name could order the entries otherwise than they stand."""
    if any(reading.is_rank for reading in readings) or len(readings) < 3:
        return
    for name in {name for reading in readings for name in reading.numbers}:
        values = [reading.numbers[name] for reading in readings if name in reading.numbers]
        if len(values) < len(readings) or len(set(values)) == 1:
            continue
        rises = all(a <= b for a, b in itertools.pairwise(values))
        falls = all(a >= b for a, b in itertools.pairwise(values))
        if name == GRADE and all(reading.rank is None for reading in readings):
            is_doubtful = not falls
        elif sorted(values) in (list(range(1, len(values) + 1)), list(range(len(values)))):
            is_doubtful = not rises
        else:
            is_doubtful = falls if _COST.search(name) else rises
        if is_doubtful:
            raise UnclearError("ranks")


def _is_by_likelihood(settled: Sequence[tuple[int | None, Reading]]) -> bool:
    """Whether candidates stand as they were shown, so that their places mean nothing, with a likelihood each."""
    numbers = [-1 if number is None else number for number, _ in settled]
    is_as_shown = all(a < b for a, b in itertools.pairwise([-1, *numbers]))
    return is_as_shown and all(reading.is_likelihood for _, reading in settled)


def _sorted_by(ranks: Sequence[int | None], *, is_called: bool, may_repeat: bool) -> list[int] | None:
    """Returns the positions of entries in the order of their ranks; None where there are none.

    Args:
        ranks: of the entries.
        is_called: whether the answer calls the numbers ranks.
        may_repeat: whether equal numbers are the style of a list, which Markdown numbers itself.
    """
    known = [rank for rank in ranks if rank is not None]
    if not known or (may_repeat and len(set(known)) == 1 and len(known) > 1):
        return None
    if (is_called or may_repeat) and all(a < b for a, b in itertools.pairwise(known)):
        return list(range(len(ranks)))
    size = len(ranks)
    if len(known) < size or len(set(known)) < size or not (_is_permutation(ranks) or (is_called and min(known) <= 1)):
        if not is_called and not may_repeat and known == sorted(known, reverse=True) and len(set(known)) > 1:
            return None
        raise UnclearError("ranks")
    if not is_called and not may_repeat and known == sorted(known, reverse=True):
        raise UnclearError("ranks")
    return sorted(range(size), key=lambda n: known[n])


def _is_permutation(ranks: Sequence[int | None]) -> bool:
    """Whether ranks are the numbers from 0 or from 1, each once."""
    known = sorted(rank for rank in ranks if rank is not None)
    return known in (list(range(len(ranks))), list(range(1, len(ranks) + 1)))


def _are_label_numbers(ranks: Sequence[int | None], numbers: Sequence[int | None]) -> bool:
    """Whether numbers behind labels are those of the labels, counted from 0 or from 1."""
    offsets = {
        None if rank is None or number is None else rank - number for rank, number in zip(ranks, numbers, strict=True)
    }
    return offsets in ({0}, {1})


def agrees(order: Sequence[int | None], ranking: Sequence[int | None]) -> bool:
    """Whether a list names only candidates of a ranking, in its order."""
    places = {number: place for place, number in reversed(list(enumerate(ranking)))}
    named = [places.get(number, -1) for number in dict.fromkeys(order) if number is not None]
    return -1 not in named and named == sorted(named)
