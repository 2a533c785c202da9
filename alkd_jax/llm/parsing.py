"""Reads an answer as a list of labels, and says what had to be mended.

Only the labels that were shown count, never bare digits: half of all game titles contain some. A list that is short
stays short; nothing is filled in, least of all in the order of the question. No step knows the held-out item.
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
"""Stored with every reading; a stored answer with another number is read again."""

STATUSES = ("ok", "repaired", "partial", "truncated", "refused", "invalid")

_THINKING = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)
_LABEL = re.compile(r"C[0-9]{2}", re.IGNORECASE)
_QUOTED = re.compile(r"[\"'](C[0-9]{2})[\"']", re.IGNORECASE)
_LISTED = re.compile(r"[\s\[(]*(C[0-9]{2}(?:\s*[,;>]\s*C[0-9]{2})+)[\s\]).]*", re.IGNORECASE)
_BULLET = re.compile(r"\s*(?:[-*•]+|[0-9]{1,3}[.):])?\s*[*_`\"'\[(<]*")
_LINE = re.compile(_BULLET.pattern + r"(C[0-9]{2})(?![A-Za-z0-9])", re.IGNORECASE)
_ENTRY = re.compile(r"\s*[\[(<]?(C[0-9]{2})(?![A-Za-z0-9])", re.IGNORECASE)
_LONGEST_READ = 100_000


@dataclasses.dataclass(frozen=True)
class Reading:
    """What an answer says.

    Attributes:
        status: "ok" as asked; "repaired" complete after mending; "partial" short but long enough; "truncated" cut off
            by the server (the items before the cut, if enough); "refused"; "invalid".
        items: distinct candidates, best first; empty unless there are enough.
        hints: what a question for hints was answered with.
        repairs: what was mended or found missing → how many entries it touched.
    """

    status: str
    items: tuple[int, ...] = ()
    hints: tuple[str, ...] = ()
    repairs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether there is something to learn from."""
        return bool(self.items or self.hints)


def read_answer(
    question: prompts.Question,
    content: str | None,
    *,
    finish_reason: str | None = "stop",
    refusal: str | None = None,
    min_valid: int = 20,
) -> Reading:
    """Reads the answer to a question.

    Args:
        question: as it was sent.
        content: of the message.
        finish_reason: as the server gave it.
        refusal: of the message.
        min_valid: entries from which a short list is usable.

    Returns:
        The reading; whatever the text, no exception.
    """
    if refusal or finish_reason == "content_filter":
        return Reading("refused")
    text, repairs = _bare_text(content or "")
    if not text:
        return Reading("truncated" if finish_reason == "length" else "invalid", repairs={"empty": 1})
    if question.kind == "hints":
        return _read_hints(text, finish_reason, repairs)
    labels = [prompts.label(n) for n in range(len(question.candidates))]
    item_of = dict(zip(labels, question.candidates, strict=True))
    named = _labels(text, item_of, repairs) or _by_title(text, question.titles, labels, repairs)
    distinct = list(dict.fromkeys(named))
    _count(repairs, "duplicate", len(named) - len(distinct))
    _count(repairs, "surplus", len(distinct) - question.k)
    items = tuple(item_of[name] for name in distinct[: question.k])
    complete, enough = len(items) >= question.k, len(items) >= min(min_valid, question.k)
    if finish_reason == "length":
        return Reading("truncated", items if enough else (), repairs=dict(repairs))
    if complete:
        return Reading("repaired" if repairs else "ok", items, repairs=dict(repairs))
    repairs["short"] = question.k - len(items)
    return Reading("partial" if enough else "invalid", items if enough else (), repairs=dict(repairs))


def _bare_text(content: str) -> tuple[str, Counter[str]]:
    """Takes out one block of reasoning and one code fence; a block never closed holds no answer."""
    repairs: Counter[str] = Counter()
    text = content[:_LONGEST_READ]
    if found := _THINKING.match(text):
        text = text[found.end() :]
        repairs["reasoning"] += 1
    elif text.lstrip()[:7].lower() == "<think>":
        return "", repairs
    if found := _FENCE.search(text):
        text = found[1]
        repairs["fence"] += 1
    return text.strip(), repairs


def _labels(text: str, item_of: Mapping[str, int], repairs: Counter[str]) -> list[str]:
    """Returns the known labels in the order of the text; the others are counted."""
    entries = _entries(_json(text), repairs)
    if entries is None:
        repairs["prose"] += 1
        entries = list(_labels_in_prose(text))
    found = []
    for entry in entries:
        name = _as_label(entry, repairs)
        if name is not None and name in item_of:
            found.append(name)
        else:
            repairs["unknown"] += 1
    return found


def _entries(value: Any, repairs: Counter[str]) -> list[Any] | None:
    """The list of an answer in JSON: under "ranking", the only list of an object, or bare; None where there is none."""
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
        value = [inner for entry in value for inner in (entry if isinstance(entry, list) else [entry])]
    return value


def _as_label(entry: Any, repairs: Counter[str]) -> str | None:
    """The label an entry starts with: "C07", "c07", "C07: a title", {"id": "C07"}; an integer is none."""
    if isinstance(entry, dict):
        repairs["shape"] += 1
        entry = entry.get("id")
    if not isinstance(entry, str):
        return None
    found = _ENTRY.match(_plain_digits(entry[:1000]))
    if not found:
        return None
    name = found[1].upper()
    if name != entry:
        repairs["spelling"] += 1
    return name


def _labels_in_prose(text: str) -> Sequence[str]:
    """Labels in quotes; else a list of labels and nothing else; else those that lines begin with, after a bullet."""
    plain = _plain_digits(text)
    if quoted := _QUOTED.findall(plain):
        return quoted
    if listed := _LISTED.fullmatch(plain):
        return _LABEL.findall(listed[1])
    return [found[1] for line in plain.splitlines() if (found := _LINE.match(line))]


def _by_title(text: str, titles: Sequence[str], labels: Sequence[str], repairs: Counter[str]) -> list[str]:
    """Takes whole lines or entries that are exactly one candidate's title, where no label was named at all."""
    entries = _entries(_json(text), Counter())
    if entries is None:
        entries = [_BULLET.sub("", line, count=1) for line in text.splitlines()]
    folded = [_fold(title) for title in titles]
    times = Counter(folded)
    label_of = {title: name for title, name in zip(folded, labels, strict=True) if times[title] == 1}
    found = [label_of[_fold(entry)] for entry in entries if isinstance(entry, str) and _fold(entry) in label_of]
    if found:
        repairs["title"] += len(found)
        repairs.pop("unknown", None)
        _count(repairs, "unknown", len(entries) - len(found))
    return found


def _read_hints(text: str, finish_reason: str | None, repairs: Counter[str]) -> Reading:
    value = _json(text)
    entries = value.get("hints") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return Reading("truncated" if finish_reason == "length" else "invalid", repairs=dict(repairs))
    hints = prompts.clean_hints(entry for entry in entries if isinstance(entry, str))
    _count(repairs, "unknown", len(entries) - len(hints))
    status = "truncated" if finish_reason == "length" else "invalid" if not hints else "repaired" if repairs else "ok"
    return Reading(status, hints=hints, repairs=dict(repairs))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    # Thousandfold brackets and endless digits are no JSON errors to the parser.
    except (ValueError, RecursionError):
        return None


def _plain_digits(text: str) -> str:
    """NFKC, and every decimal digit of any script as 0-9."""
    normal = unicodedata.normalize("NFKC", text)
    if normal.isascii():
        return normal
    return "".join(c if c.isascii() or not c.isdecimal() else str(unicodedata.decimal(c)) for c in normal)


def _fold(title: str) -> str:
    return prompts.clean_title(title).casefold().strip("\"'*_` ")


def _count(repairs: Counter[str], name: str, times: int) -> None:
    if times > 0:
        repairs[name] += times
