"""Finds the ranking in a JSON value: a list, ranks by label, labels by rank, or any of these inside other members."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.llm.entries import Catalogue, Reading, UnclearError, ascii_digits, fold, labels_in, read_entry
from alkd_jax.llm.json_values import parse_json
from alkd_jax.llm.orders import LIKELIHOOD, in_order, settle
from alkd_jax.llm.ordinals import grade_of, ordinal_word, place_of

_MAX_DEPTH = 12
_IGNORED = re.compile(
    r"reason|thought|think|analy|expla|justif|rationale|comment|note|draft|scratch|histor|watched|bought|exclud|reject"
    r"|discard|pair|compari|duel|versus|remain|other|omit|left|unlikely|worst|least|example|enum|schema|descri|summary|usage|avoid|dislike"
    r"|not[_ -]|first_pass|initial|previous|confiden|evidence|step|seen|shown|bottom|negativ|skip|ineligib|unorder"
    r"|random|alphabet|(?<![a-z])low|remov|consider|wrong|poor|drop|filter|unsuit|irrelevan|weak|tentative|preliminary|guess",
    re.IGNORECASE,
)
_NAMING = re.compile(
    r"title|name|reason|descri|expla|why|genre|comment|note|rationale|thought|analysis|because", re.IGNORECASE
)
_RANK = re.compile(r"(?:final[_ -]?)?(?:rank(?:ing)?|position|pos|place|order|#|no|number|nr)", re.IGNORECASE)
_SCORE = re.compile(
    r"(?!.*(?:rank|order|position)).*(?:score|prob|likel|relevan|confiden|rating|weight|points|chance|match|similar)\w*",
    re.IGNORECASE,
)
_COLUMN = re.compile(r"ranks|positions|places|scores|probabilities|likelihoods|ratings|points", re.IGNORECASE)
_ORDINAL = re.compile(
    r"\s*(?:rank|position|place|top|no|#)?[\s_.:#-]*([0-9]{1,3})(?:st|nd|rd|th)?[.)]?\s*", re.IGNORECASE
)
_LATER = re.compile(r".*(?:final|correct|revis|updat|amend|adjust|fixed|reconsider|improved).*", re.IGNORECASE)
_BEST = re.compile(r"(?:^|[_ -])(?:best|winner|top)(?:$|[_ -])|^(?:first|number_?one|favou?rite)", re.IGNORECASE)
_RELATION = re.compile(
    r"better|worse|next|prev|before|after|above|below|beats?|over|under|winner|loser|follow", re.IGNORECASE
)
_DENIED = re.compile(r"recommend|includ|select|keep|relevan|valid|likely|pick|chosen|match|fit", re.IGNORECASE)
_TIERS = (
    re.compile(r"ranking", re.IGNORECASE),
    re.compile(r".*final.*", re.IGNORECASE),
    re.compile(r".*rank.*", re.IGNORECASE),
    re.compile(
        r".*(?:answer|recommend|result|response|output|order|sorted|prediction|list|labels|ids).*", re.IGNORECASE
    ),
    re.compile(r".*", re.DOTALL),
)

_ReadText = Callable[[str], "list[int | None] | None"]


def find_ranking(value: Any, catalogue: Catalogue, read_text: _ReadText) -> list[int | None] | None:
    """Finds the ranking in a JSON value.

    Args:
        value: the value.
        catalogue: of the question.
        read_text: reads a list that is written into one text.

    Returns:
        The numbers of the candidates, best first, None for each entry that names none; None where there is no list.

    Raises:
        UnclearError: there are several lists or orders, and nothing says which is meant.
    """
    found = list(_rankings("ranking" if isinstance(value, list) else "", value, catalogue, read_text, 0))
    later = [order for name, order in found if _LATER.fullmatch(name)]
    later += [[number] for number in _called_best(value, catalogue)]
    for tier in _TIERS:
        orders = [order for name, order in found if tier.fullmatch(name)]
        if orders:
            orders += later
            if all(order == orders[0] or (len(order) == 1 and order == orders[0][:1]) for order in orders):
                return orders[0]
            raise UnclearError("several lists")
    return None


def _called_best(value: Any, catalogue: Catalogue) -> Iterator[int]:
    """Yields the candidates that members of an object call the best."""
    for name, member in value.items() if isinstance(value, dict) else ():
        if _BEST.search(name) and isinstance(member, str) and (entry := read_entry(member, catalogue)).options:
            yield next(iter(entry.options.values()))


def text_behind(value: Mapping[str, Any]) -> str:
    """Returns the texts of the members that follow the ranking in an object, at every depth."""
    members = list(value.items())
    held = (
        not _IGNORED.search(name) and len(labels_in(json.dumps(member, ensure_ascii=False))) > 1
        for name, member in members
    )
    first = next((n for n, holds in enumerate(held) if holds), len(members))
    inner = members[first][1] if first < len(members) else None
    texts = [text_behind(inner)] if isinstance(inner, dict) else []
    return "\n".join(texts + [text for _, member in members[first + 1 :] for text in _texts(member)])


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _texts(member)


def _rankings(
    name: str, value: Any, catalogue: Catalogue, read_text: _ReadText, depth: int
) -> Iterator[tuple[str, list[int | None]]]:
    """Yields each list in a value with the name of the member that holds it."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        order = _order_in_text(value, catalogue, read_text)
        if order is not None:
            yield name, order
    elif isinstance(value, list) and name.lower() != "input":
        entries = [_read_member(entry, catalogue) for entry in _rows(value, catalogue)]
        if any(entry.options or entry.several for entry in entries):
            yield name, in_order(settle(entries))
        else:
            for entry in value:
                if isinstance(entry, dict | list):
                    yield from _rankings(name, entry, catalogue, read_text, depth + 1)
    elif isinstance(value, dict):
        mapped = _map_entries(value, catalogue, is_scored=bool(_SCORE.fullmatch(name)))
        if mapped is not None and LIKELIHOOD.fullmatch(name):
            mapped = [dataclasses.replace(entry, is_likelihood=True) for entry in mapped]
        if mapped is not None:
            yield name, in_order(settle(mapped))
            return
        if any(_COLUMN.fullmatch(column) and isinstance(member, list) for column, member in value.items()):
            raise UnclearError("ranks")
        for member_name, member in value.items():
            if not _IGNORED.search(member_name) and (
                depth or not isinstance(member, str) or _is_list_name(member_name)
            ):
                inner = member_name if any(tier.fullmatch(member_name) for tier in _TIERS[:3]) else name or member_name
                yield from _rankings(inner, member, catalogue, read_text, depth + 1)


def _is_list_name(name: str) -> bool:
    """Whether a member that is a text may hold the list."""
    return any(tier.fullmatch(name) for tier in _TIERS[:4]) or name.lower() in (
        "content", "text", "arguments", "parameters", "input", "data", "json", "value", "items", "candidates",
    )  # fmt: skip


def _order_in_text(text: str, catalogue: Catalogue, read_text: _ReadText) -> list[int | None] | None:
    """Reads a list that is written into one text of a JSON value; a title is none."""
    if fold(text) in catalogue.titles or any(fold(text) == fold(title) for title in catalogue.shown):
        return None
    value = parse_json(text)
    if isinstance(value, dict | list | str):
        return find_ranking(value, catalogue, read_text)
    return read_text(text)


def _rows(value: Sequence[Any], catalogue: Catalogue) -> Iterator[Any]:
    """Yields the entries of a list; those of a list inside are entries themselves, or the cells of one entry."""
    for entry in value:
        if isinstance(entry, list) and not _is_row(entry, catalogue):
            yield from entry
        else:
            yield entry


def _is_row(cells: Sequence[Any], catalogue: Catalogue) -> bool:
    """Whether the cells of a row are about one candidate, as in [1, "C07", "its title"]."""
    texts = [cell for cell in cells if isinstance(cell, str)]
    readings = [read_entry(text, catalogue) for text in texts]
    pure = [reading for reading in readings if reading.is_pure]
    if len(texts) == 2 and pure and catalogue.has_exact_title(pure[0].options["label"], texts[1]):
        return True
    return len(pure) == 1 and len(cells) > 1 and len(readings) < 4 and not any(r.several for r in readings)


def _read_member(entry: Any, catalogue: Catalogue) -> Reading:
    """Reads an entry of a JSON list."""
    if isinstance(entry, str):
        return read_entry(entry, catalogue)
    if isinstance(entry, list):
        return _read_row(entry, catalogue)
    if isinstance(entry, dict):
        return _read_object(entry, catalogue)
    return Reading()


def _read_row(cells: Sequence[Any], catalogue: Catalogue) -> Reading:
    """Reads a row, such as [1, "C07"] or ["C07", 1] or ["C07", "its title"]."""
    labels = [reading for cell in cells if isinstance(cell, str) and (reading := read_entry(cell, catalogue)).is_pure]
    numbers = [cell for cell in cells if type(cell) is int]
    floats = [cell for cell in cells if type(cell) is float]
    if not labels:
        return Reading()
    return Reading(
        {"label": labels[0].options["label"]},
        is_pure=True,
        rank_after=numbers[0] if len(numbers) == 1 else None,
        score=floats[0] if len(floats) == 1 else None,
    )


def _read_object(entry: Mapping[str, Any], catalogue: Catalogue) -> Reading:
    """Reads an object, such as {"id": "C07", "title": "…", "rank": 1}."""
    rank, score = _number_named(entry, _RANK, int), _number_named(entry, _SCORE, float)
    is_denied = any(member is False and _DENIED.search(name) for name, member in entry.items())
    is_related = any(
        _RELATION.search(name) and isinstance(member, str) and read_entry(member, catalogue).options
        for name, member in entry.items()
    )
    if is_denied or is_related or (rank is None and entry.get("rank") is not None):
        return Reading(is_unclear=True)
    names = {name: member for name, member in entry.items() if not _NAMING.search(name)}
    read = [
        _read_member(member, catalogue)
        for name, member in names.items()
        if isinstance(member, str | dict) and not _RANK.fullmatch(name)
    ]
    labels = {reading.options["label"] for reading in read if "label" in reading.options}
    if not labels:
        labels = {reading.options["label"] for name in entry if (reading := read_entry(name, catalogue)).is_pure}
        if labels and rank is None and len(entry) == 1:
            member = next(iter(entry.values()))
            rank = member if type(member) is int else None
            score = member if type(member) is float else None
    if not labels:
        read = [read_entry(member, catalogue) for name, member in entry.items() if isinstance(member, str)
                and _NAMING.search(name) and re.search(r"title|name", name, re.IGNORECASE)]  # fmt: skip
        options = next((reading.options for reading in read if reading.options), {})
        return Reading(options, rank_after=rank, is_rank=rank is not None, score=score, numbers=_numbers(entry))
    if len(labels) > 1:
        pure = {reading.options["label"] for reading in read if reading.is_pure}
        named = [read_entry(entry[name], catalogue) for name in ("id", "label") if isinstance(entry.get(name), str)]
        labels = {reading.options["label"] for reading in named if reading.is_pure} or pure
    if len(labels) != 1:
        return Reading(is_unclear=True)
    is_rank = any(_RANK.fullmatch(name) for name in entry) and rank is not None
    numbers = _numbers(entry)
    return Reading(
        {"label": labels.pop()}, is_pure=True, rank_after=rank, is_rank=is_rank, score=score, numbers=numbers
    )


def _numbers(entry: Mapping[str, Any]) -> dict[str, int | float]:
    """Returns the numbers and grades of an object under names that are neither rank nor score."""
    numbers: dict[str, int | float] = {}
    for name, member in entry.items():
        grade = grade_of(member) if isinstance(member, str) else None
        if grade is not None:
            numbers[name] = grade
        elif isinstance(member, int | float) and not isinstance(member, bool):
            if not _RANK.fullmatch(name) and not _SCORE.fullmatch(name):
                numbers[name] = member
    return numbers


def _number_named(entry: Mapping[str, Any], names: re.Pattern[str], kind: type) -> Any:
    """Returns the number under one of the names, as a number or as a text, or None."""
    for name, member in entry.items():
        if names.fullmatch(name) and isinstance(member, int | float | str) and not isinstance(member, bool):
            if isinstance(member, str):
                ordinal = _ordinal(member)
                if kind is int and ordinal is not None:
                    return ordinal
                member = member.strip().rstrip("%")
            try:
                if kind is float or float(member).is_integer():
                    return kind(float(member))
            except (ValueError, OverflowError):
                continue
    return None


def _ordinal(text: str) -> int | None:
    """Returns the number that a text such as "2", "rank_2", "2nd" or "second" stands for, or None."""
    match = _ORDINAL.fullmatch(ascii_digits(text))
    return int(match[1]) if match else place_of(ascii_digits(text)) or ordinal_word(text)


def _map_entries(value: Mapping[str, Any], catalogue: Catalogue, *, is_scored: bool) -> list[Reading] | None:
    """Reads an object whose names are labels, titles or ranks, as {"C07": 1} or {"1": "C07"}; None for others."""
    if len(value) < 2 and not any(isinstance(member, int | dict) for member in value.values()):
        return None
    ordinals = [_ordinal(name) for name in value]
    if None not in ordinals:
        read = [_read_member(member, catalogue) for member in value.values()]
        if any(reading.options for reading in read):
            return [
                Reading(reading.options, is_pure=reading.is_pure, is_verified=reading.is_verified, rank=rank)
                for reading, rank in zip(read, ordinals, strict=True)
            ]
    names = [read_entry(name, catalogue) for name in value]
    if not names or not all(name.options for name in names) or any(name.several or name.is_unclear for name in names):
        return None
    entries = []
    for name, member in zip(names, value.values(), strict=True):
        rank = score = None
        is_rank = False
        if member is False:
            entries.append(Reading(is_unclear=True))
            continue
        if isinstance(member, dict):
            rank, score = _number_named(member, _RANK, int), _number_named(member, _SCORE, float)
            is_rank = rank is not None
        elif isinstance(member, int | float) and not isinstance(member, bool):
            rank, score = (None, member) if is_scored or isinstance(member, float) else (member, None)
        elif isinstance(member, str) and (ordinal := _ordinal(member)) is not None:
            number = next(iter(name.options.values()))
            if number >= catalogue.size or catalogue.titles[number] != fold(member):
                rank = ordinal
        entries.append(Reading(name.options, is_pure=name.is_pure, rank_after=rank, is_rank=is_rank, score=score))
    return entries
