"""Checks that nothing which a text says around its ranking changes, doubts or contradicts the list."""

import re
from collections.abc import Sequence

from alkd_jax.llm.entries import LABEL, Catalogue, UnclearError, labels_in
from alkd_jax.llm.json_values import Found
from alkd_jax.llm.orders import agrees
from alkd_jax.llm.remarks import (
    offers_choice,
    says_before,
    says_best,
    says_reversed,
    says_revised,
    says_unordered,
)
from alkd_jax.llm.text_rankings import read_text

_STRUCK = re.compile(
    rf"(?<!~)~~(?!~)[^~\n]*{LABEL}[^~\n]*~~(?!~)|<(?P<tag>s|del|strike)>[^<\n]*(?<![A-Za-z0-9])[Cc][ _-]?[0-9]{{1,3}}"
)


def without_titles(text: str, catalogue: Catalogue) -> str:
    """Removes the shown titles from a text."""
    lowered = text.casefold()
    for title in catalogue.shown:
        if len(title) > 2 and title.casefold() in lowered:
            text = re.sub(re.escape(title), " ", text, flags=re.IGNORECASE)
    return text


def check_remarks(text: str, catalogue: Catalogue) -> None:
    """Raises UnclearError where a text says that its list ends with the best or has no order, or strikes entries."""
    for kind, says in (("reversed", says_reversed), ("unordered", says_unordered), ("struck", _STRUCK.search)):
        if says(text) and says(without_titles(text, catalogue)):
            raise UnclearError(kind)


def check_choice(text: str, values: Sequence[Found], catalogue: Catalogue) -> None:
    """Raises UnclearError where the text around several JSON values offers them for a choice."""
    ends = [0, *(value.end for value in values)]
    starts = [*(value.start for value in values), len(text)]
    around = "\n".join(text[end:start] for end, start in zip(ends, starts, strict=True))
    if offers_choice(without_titles(around, catalogue)):
        raise UnclearError("several lists")


def check_trailer(text: str, order: Sequence[int | None], catalogue: Catalogue) -> None:
    """Raises UnclearError where the text after the ranking changes it or holds another."""
    if says_revised(without_titles(text, catalogue)):
        raise UnclearError("revised")
    check_placements(text, order, catalogue)
    try:
        other = read_text(text, catalogue)
    except UnclearError:
        return
    if other is not None and catalogue.is_full(other) and not agrees(other, order):
        raise UnclearError("several lists")


def check_placements(text: str, order: Sequence[int | None], catalogue: Catalogue) -> None:
    """Raises UnclearError where a sentence places a candidate elsewhere than the ranking does."""
    for sentence in re.split(r"[.!?;。！？；\n]+", text):
        labels = [number for number in dict.fromkeys(labels_in(sentence)) if number in order]
        if not labels or len(labels) > 3:
            continue
        plain = without_titles(sentence, catalogue)
        is_before = says_before(plain) if len(labels) > 1 else None
        named = labels[::-1] if is_before is False else labels
        if (is_before is not None and not agrees(named, order)) or (says_best(plain) and named[0] != order[0]):
            raise UnclearError("revised")


def check_unread(text: str, order: Sequence[int | None], catalogue: Catalogue) -> None:
    """Raises UnclearError where the last sentences that name enough candidates are no list and in another order."""
    if not catalogue.is_full(order):
        return
    for paragraph in reversed(re.split(r"\n\s*\n", text)):
        labels = list(dict.fromkeys(labels_in(paragraph)))
        if not catalogue.is_full(labels) or catalogue.is_echo(labels):
            continue
        if agrees(labels[: catalogue.k], order):
            return
        labels = list(dict.fromkeys(labels_in(without_titles(paragraph, catalogue))))
        if catalogue.is_full(labels) and _is_unread(paragraph, catalogue):
            raise UnclearError("several lists")
        return


def _is_unread(text: str, catalogue: Catalogue) -> bool:
    """Whether no list is found in a text."""
    try:
        return read_text(text, catalogue) is None
    except UnclearError:
        return False
