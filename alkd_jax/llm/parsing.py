"""Parses an answer as a list of labels, and counts what had to be repaired.

Only labels that were shown are read, never bare digits, because half of all game titles contain some. A short list
stays short: it is not filled up, and no step knows the held-out item.
"""

import dataclasses
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alkd_jax.llm import prompts

PARSER_VERSION = 1
"""Stored with every parsed answer; a stored answer with another version is parsed again."""

STATUSES = ("ok", "repaired", "partial", "truncated", "refused", "invalid")

_THINKING = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
_LABEL = re.compile(r"C[0-9]{2}", re.IGNORECASE)
_QUOTED = re.compile(r"[\"'](C[0-9]{2})[\"']", re.IGNORECASE)
_LISTED = re.compile(r"[\s\[(]*(C[0-9]{2}(?:\s*[,;>]\s*C[0-9]{2})+)[\s\]).]*", re.IGNORECASE)
_BULLET = re.compile(r"\s*(?:[-*•]+|[0-9]{1,3}[.):])?\s*[*_`\"'\[(<]*")
_LINE = re.compile(_BULLET.pattern + r"(C[0-9]{2})(?![A-Za-z0-9])", re.IGNORECASE)
_ENTRY = re.compile(r"\s*[\[(<]?(C[0-9]{2})(?![A-Za-z0-9])", re.IGNORECASE)
_MAX_LENGTH = 100_000


@dataclasses.dataclass(frozen=True)
class ParsedAnswer:
    """The items or hints of an answer.

    Attributes:
        status: "ok", as asked for; "repaired", complete after repairs; "partial", short but long enough; "truncated",
            cut off by the server, with the items before the cut if they are enough; "refused"; "invalid".
        items: distinct candidates, best first; empty where there are too few.
        hints: the answer to a question for hints.
        repairs: kind of repair, or of what is missing → number of entries.
    """

    status: str
    items: tuple[int, ...] = ()
    hints: tuple[str, ...] = ()
    repairs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the answer has items or hints."""
        return bool(self.items or self.hints)


def parse_answer(
    question: prompts.Question,
    content: str | None,
    *,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
    min_valid: int = 20,
) -> ParsedAnswer:
    """Parses the answer to a question.

    Args:
        question: as it was sent.
        content: text of the message.
        finish_reason: as the server sent it.
        refusal: text of a refusal, if the server sent one.
        min_valid: number of entries from which a short list is usable.

    Returns:
        The parsed answer; no text raises an error.
    """
    if refusal or finish_reason == "content_filter":
        return ParsedAnswer("refused")
    text, repairs = _strip_wrapping(content or "")
    if not text:
        return ParsedAnswer("truncated" if finish_reason == "length" else "invalid", repairs={"empty": 1})
    if question.kind == "hints":
        return _parse_hints(text, finish_reason, repairs)
    labels = [prompts.label(n) for n in range(len(question.candidates))]
    item_of = dict(zip(labels, question.candidates, strict=True))
    listed = _parse_labels(text, item_of, repairs) or _parse_titles(text, question.titles, labels, repairs)
    distinct = list(dict.fromkeys(listed))
    _count(repairs, "duplicate", len(listed) - len(distinct))
    _count(repairs, "surplus", len(distinct) - question.k)
    items = tuple(item_of[label] for label in distinct[: question.k])
    complete, enough = len(items) >= question.k, len(items) >= min(min_valid, question.k)
    if finish_reason == "length":
        return ParsedAnswer("truncated", items if enough else (), repairs=dict(repairs))
    if complete:
        return ParsedAnswer("repaired" if repairs else "ok", items, repairs=dict(repairs))
    repairs["short"] = question.k - len(items)
    return ParsedAnswer("partial" if enough else "invalid", items if enough else (), repairs=dict(repairs))


def _strip_wrapping(content: str) -> tuple[str, Counter[str]]:
    """Removes one block of reasoning and one code fence; the text is empty where a block of reasoning has no end.

    Returns:
        The text, and the repairs so far.
    """
    repairs: Counter[str] = Counter()
    text = content[:_MAX_LENGTH]
    if match := _THINKING.match(text):
        text = text[match.end() :]
        repairs["reasoning"] += 1
    elif text.lstrip()[:7].lower() == "<think>":
        return "", repairs
    if match := _FENCE.search(text):
        text = match[1]
        repairs["fence"] += 1
    return text.strip(), repairs


def _parse_labels(text: str, item_of: Mapping[str, int], repairs: Counter[str]) -> list[str]:
    """Returns the known labels in the order of the text, and counts unknown entries as repairs."""
    entries = _list_entries(_parse_json(text), repairs)
    if entries is None:
        repairs["prose"] += 1
        entries = list(_labels_in_prose(text))
    labels = []
    for entry in entries:
        label = _as_label(entry, repairs)
        if label is not None and label in item_of:
            labels.append(label)
        else:
            repairs["unknown"] += 1
    return labels


def _list_entries(value: Any, repairs: Counter[str]) -> list[Any] | None:
    """Returns the list in a JSON value: the member "ranking", the only list of an object, or the value itself.

    Returns:
        The entries, with nested lists flattened; None where there is no list.
    """
    if isinstance(value, dict):
        lists = [member for member in value.values() if isinstance(member, list)]
        ranking = value.get("ranking")
        if set(value) != {"ranking"}:
            repairs["shape"] += 1
        value = ranking if isinstance(ranking, list) else lists[0] if len(lists) == 1 else None
    elif isinstance(value, list):
        repairs["shape"] += 1
    if not isinstance(value, list):
        return None
    if any(isinstance(entry, list) for entry in value):
        repairs["nested"] += 1
        value = [member for entry in value for member in (entry if isinstance(entry, list) else [entry])]
    return value


def _as_label(entry: Any, repairs: Counter[str]) -> str | None:
    """Returns the label that an entry begins with, such as "C07", "c07", "C07: a title" or {"id": "C07"}, or None."""
    if isinstance(entry, dict):
        repairs["shape"] += 1
        entry = entry.get("id")
    if not isinstance(entry, str):
        return None
    match = _ENTRY.match(_ascii_digits(entry[:1000]))
    if not match:
        return None
    label = match[1].upper()
    if label != entry:
        repairs["spelling"] += 1
    return label


def _labels_in_prose(text: str) -> Sequence[str]:
    """Returns labels in quotes; else those of a text that only lists labels; else those at the beginning of lines."""
    ascii_text = _ascii_digits(text)
    if quoted := _QUOTED.findall(ascii_text):
        return quoted
    if listed := _LISTED.fullmatch(ascii_text):
        return _LABEL.findall(listed[1])
    return [match[1] for line in ascii_text.splitlines() if (match := _LINE.match(line))]


def _parse_titles(text: str, titles: Sequence[str], labels: Sequence[str], repairs: Counter[str]) -> list[str]:
    """Returns the labels of lines or entries that equal exactly one candidate's title; for texts without labels."""
    entries = _list_entries(_parse_json(text), Counter())
    if entries is None:
        entries = [_BULLET.sub("", line, count=1) for line in text.splitlines()]
    folded = [_fold(title) for title in titles]
    counts = Counter(folded)
    label_of = {title: label for title, label in zip(folded, labels, strict=True) if counts[title] == 1}
    listed = [label_of[_fold(entry)] for entry in entries if isinstance(entry, str) and _fold(entry) in label_of]
    if listed:
        repairs["title"] += len(listed)
        repairs.pop("unknown", None)
        _count(repairs, "unknown", len(entries) - len(listed))
    return listed


def _parse_hints(text: str, finish_reason: str | None, repairs: Counter[str]) -> ParsedAnswer:
    """Parses the answer to a question for hints."""
    value = _parse_json(text)
    entries = value.get("hints") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return ParsedAnswer("truncated" if finish_reason == "length" else "invalid", repairs=dict(repairs))
    hints = prompts.clean_hints(entry for entry in entries if isinstance(entry, str))
    _count(repairs, "unknown", len(entries) - len(hints))
    status = "truncated" if finish_reason == "length" else "invalid" if not hints else "repaired" if repairs else "ok"
    return ParsedAnswer(status, hints=hints, repairs=dict(repairs))


def _parse_json(text: str) -> Any:
    """Parses JSON; returns None where the text is none."""
    try:
        return json.loads(text)
    # The parser raises other errors than JSONDecodeError for thousands of brackets or digits.
    except (ValueError, RecursionError):
        return None


def _ascii_digits(text: str) -> str:
    """Normalizes a text by NFKC and writes the decimal digits of every script as 0-9."""
    normal = unicodedata.normalize("NFKC", text)
    if normal.isascii():
        return normal
    return "".join(c if c.isascii() or not c.isdecimal() else str(unicodedata.decimal(c)) for c in normal)


def _fold(title: str) -> str:
    """Returns a title in the form in which titles are compared."""
    return prompts.clean_title(title).casefold().strip("\"'*_` ")


def _count(repairs: Counter[str], kind: str, entries: int) -> None:
    """Adds to the number of entries with a kind of repair, where there are any."""
    if entries > 0:
        repairs[kind] += entries
