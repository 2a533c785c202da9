"""Parses an answer as a list of candidates, and counts what had to be repaired.

The ranking is the last complete JSON value that holds one, else the only list in the text. Reasoning is left out, and
no title decides an order. Only labels that were shown are read, and titles that one candidate alone has; never bare
digits, because half of all game titles contain some. What has several meanings is counted and not read. A short list
stays short: it is not filled up, and no step knows the held-out item.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from alkd_jax.llm import prompts
from alkd_jax.llm.entries import Catalogue, UnclearError, labels_in, read_entry
from alkd_jax.llm.json_rankings import find_ranking, text_behind
from alkd_jax.llm.json_values import Found, find_values, parse_json
from alkd_jax.llm.orders import agrees
from alkd_jax.llm.reasoning import split_reasoning
from alkd_jax.llm.remarks import is_aside, is_final, says_example, says_revised
from alkd_jax.llm.surroundings import (
    check_choice,
    check_placements,
    check_remarks,
    check_trailer,
    check_unread,
    without_titles,
)
from alkd_jax.llm.text_rankings import read_text

PARSER_VERSION = 5
"""Stored with every parsed answer; a stored answer with another version is parsed again."""

STATUSES = ("ok", "repaired", "partial", "truncated", "refused", "invalid")

_MAX_LENGTH: Final = 100_000
_FENCE = re.compile(r"\s*(?:```|~~~)[\w-]*[ \t]*\n?(?P<inside>.*?)(?:```|~~~)?\s*", re.DOTALL)


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
    text = (content or "").lstrip("\ufeff").strip()
    is_cut = finish_reason == "length"
    if not text:
        return ParsedAnswer("truncated" if is_cut else "invalid", repairs={"empty": 1})
    repairs: Counter[str] = Counter()
    try:
        if question.kind == "hints":
            return _parse_hints(text, is_cut, repairs)
        catalogue = Catalogue(question.titles, _history_titles(question), k=question.k)
        numbers = _Reader(catalogue, is_cut, repairs).read(text)
    except UnclearError as error:
        return ParsedAnswer("truncated" if is_cut else "invalid", repairs={str(error): 1})
    known = [number for number in numbers if number is not None and number < catalogue.size]
    distinct = list(dict.fromkeys(known))
    _count(repairs, "unknown", len(numbers) - len(known))
    _count(repairs, "duplicate", len(known) - len(distinct))
    _count(repairs, "surplus", len(distinct) - question.k)
    items = tuple(question.candidates[number] for number in distinct[: question.k])
    # A question about an item asks for at most k items, one about a session for exactly k.
    wanted = 1 if question.kind == "precede" else question.k
    complete, enough = len(items) >= wanted, len(items) >= min(min_valid, wanted)
    if is_cut:
        return ParsedAnswer("truncated", items if enough else (), repairs=dict(repairs))
    if complete:
        return ParsedAnswer("repaired" if repairs else "ok", items, repairs=dict(repairs))
    repairs["short"] = wanted - len(items)
    return ParsedAnswer("partial" if enough else "invalid", items if enough else (), repairs=dict(repairs))


class _Reader:
    """Reads the ranking of one answer.

    Attributes:
        catalogue: of the question.
        is_cut: whether the server cut the answer off.
        repairs: kind of repair → number of entries; counted while reading.
    """

    def __init__(self, catalogue: Catalogue, is_cut: bool, repairs: Counter[str]):
        self.catalogue, self.is_cut, self.repairs = catalogue, is_cut, repairs

    def read(self, text: str) -> list[int | None]:
        """Returns the numbers of the candidates, best first, None for entries that name none.

        Raises:
            UnclearError: the text has several meanings.
        """
        value, is_open = parse_json(text), False
        if isinstance(value, str):
            self.repairs["shape"] += 1
            return self.read(value) if value.strip() else []
        if value is None:
            text, closed, is_open = split_reasoning(text, self.catalogue.shown)
            _count(self.repairs, "reasoning", closed + is_open)
            if len(text) > _MAX_LENGTH:
                raise UnclearError("long")
            self.repairs.update({"fence": 1} if "```" in text else {})
            if "\n" not in text and text.count("\\n") > 1:
                text = text.replace("\\n", "\n")
            fence = _FENCE.fullmatch(text)
            value = None if is_open else parse_json(fence["inside"] if fence else text)
        if isinstance(value, dict | list) and (numbers := self._whole(value)) is not None:
            check_remarks(text, self.catalogue)
            return numbers
        is_whole = isinstance(value, dict)
        numbers = self._last_in_values(text, is_open)
        if numbers is None:
            if is_open:
                raise UnclearError("reasoning")
            self.repairs["prose"] += 1
            numbers = None if is_whole else self._in_prose(text)
            check_unread(text, numbers or [], self.catalogue)
        check_remarks(text, self.catalogue)
        return numbers or []

    def _whole(self, value: Any) -> list[int | None] | None:
        """Finds the ranking in an answer that is JSON and nothing else."""
        numbers = self._in_value(value)
        is_named = isinstance(value, dict) and any("rank" in name.lower() for name in value)
        if numbers is None or (self.catalogue.is_echo(numbers) and len(numbers) > self.catalogue.k and not is_named):
            return None
        if isinstance(value, dict) and (behind := text_behind(value)):
            if says_revised(without_titles(behind, self.catalogue)):
                raise UnclearError("revised")
            check_placements(behind, numbers, self.catalogue)
        self._count_shape(value)
        return numbers

    def _in_value(self, value: Any) -> list[int | None] | None:
        """Finds the ranking in a JSON value."""
        return find_ranking(value, self.catalogue, lambda text: read_text(text, self.catalogue))

    def _in_prose(self, text: str) -> list[int | None] | None:
        """Finds the ranking in a text that is no JSON."""
        if self.is_cut:
            # The last word of a text that was cut off may be a part of a label.
            text = re.sub(r"[^\s,;>]*\Z", "", text)
        numbers = read_text(text, self.catalogue)
        lines = text.splitlines()
        first = next((n for n, line in enumerate(lines) if labels_in(line)), len(lines))
        finals = (n for n, line in enumerate(lines) if is_final(line) and labels_in(" ".join(lines[n : n + 2])))
        final = max(finals, default=first)
        rest = without_titles("\n".join(lines[max(first, final) + 1 :]), self.catalogue)
        sentences = re.split(r"\n|(?<=[.!?:;])\s", rest)
        if any(says_revised(sentence.strip(" *_#>-"), at_start=True) for sentence in sentences):
            raise UnclearError("revised")
        entries = [
            n for n, line in enumerate(lines) if (entry := read_entry(line, self.catalogue)).is_item or entry.several
        ]
        if numbers and entries:
            check_placements("\n".join(lines[entries[-1] + 1 :]), numbers, self.catalogue)
        return numbers

    def _last_in_values(self, text: str, is_open: bool) -> list[int | None] | None:
        """Finds the ranking in the last JSON value of a text that holds one."""
        found = self._values_with_rankings(text)
        if not found:
            return None
        full = [
            n for n, (_, order) in enumerate(found) if isinstance(order, UnclearError) or self.catalogue.is_full(order)
        ]
        chosen, order = found[full[-1]] if full else found[-1]
        if isinstance(order, UnclearError):
            raise order
        others = [other for _, other in found if isinstance(other, list)]
        later = [other for value, other in found if value.start > chosen.start]
        differing = [other for other in others if other != order]
        if any(isinstance(other, UnclearError) or not agrees(other, order) for other in later):
            raise UnclearError("several lists")
        if not full and differing:
            raise UnclearError("several lists")
        before, after = text[: chosen.start], text[chosen.end :]
        heading = without_titles(before, self.catalogue)[-200:].rsplit("\n\n", 1)[-1]
        if differing:
            check_choice(text, [value for value, _ in found], self.catalogue)
            if is_aside(heading.rsplit(".", 1)[-1]):
                raise UnclearError("several lists")
        rest = after.strip(" \t\r\n`~*_}])\"'.;")
        paragraph, newline, line = before.rpartition("\n")
        is_apart = bool(newline) and bool(paragraph.strip()) and not line.strip(" `")
        if is_open and (rest or differing or self.is_cut or not is_apart):
            raise UnclearError("reasoning")
        if self.is_cut and not chosen.is_cut and rest:
            raise UnclearError("revised")
        if rest and not chosen.is_cut:
            check_trailer(after, order, self.catalogue)
            check_unread(after, order, self.catalogue)
        self.repairs["cut" if chosen.is_cut else "prose" if before.strip() or rest else "shape"] += 1
        return order

    def _values_with_rankings(self, text: str) -> list[tuple[Found, list[int | None] | UnclearError]]:
        """Returns the JSON values that hold a ranking, each with its ranking or what makes it unclear."""
        values = find_values(text)
        found: list[tuple[Found, list[int | None] | UnclearError]] = []
        for value in values:
            span = text[value.start : value.end]
            line = text[text.rfind("\n", 0, value.start) + 1 :].partition("\n")[0]
            if self.catalogue.is_title(line):
                continue
            try:
                order = self._in_value(value.value)
            except UnclearError as error:
                found.append((value, error))
                continue
            if order is None:
                continue
            labels = labels_in(span)
            is_named = bool(re.search(r"rank", span, re.IGNORECASE))
            if (
                self.catalogue.is_echo(labels)
                and not (is_named and len(labels) == self.catalogue.size)
                and {n for n in order if n is not None} <= set(labels)
            ):
                continue
            lead = without_titles(text[: value.start], self.catalogue)
            if says_example(lead) or (not is_named and is_aside(lead.rstrip().rpartition("\n")[2])):
                continue
            found.append((value, order))
        if len(found) > 1 and all(isinstance(order, list) and len(order) == 1 for _, order in found):
            rows = [value.value for value, _ in found]
            whole = Found(rows, found[0][0].start, found[-1][0].end, is_cut=found[-1][0].is_cut)
            order = self._in_value([row[0] if isinstance(row, list) else row for row in rows])
            return [(whole, order)] if order is not None and not self.catalogue.is_echo(order) else []
        return found

    def _count_shape(self, value: Any) -> None:
        """Counts what makes a JSON answer another than was asked for."""
        ranking = value.get("ranking") if isinstance(value, dict) and set(value) == {"ranking"} else None
        if not isinstance(ranking, list):
            self.repairs["shape"] += 1
        elif any(isinstance(entry, list) for entry in ranking):
            self.repairs["nested"] += 1
        elif any(isinstance(entry, dict) for entry in ranking):
            self.repairs["shape"] += 1
        else:
            odd = [text for text in ranking if isinstance(text, str) and not re.fullmatch(r"C[0-9]{2}", text, re.ASCII)]
            _count(self.repairs, "spelling", sum(map(bool, map(labels_in, odd))))


def _history_titles(question: prompts.Question) -> list[str]:
    """Returns the titles of the history as shown."""
    found = []
    for line in question.messages[-1]["content"].splitlines():
        value = parse_json(line) if line.startswith('{"title": ') else None
        if isinstance(value, dict):
            found.append(str(value["title"]))
    return found


def _parse_hints(text: str, is_cut: bool, repairs: Counter[str]) -> ParsedAnswer:
    """Parses the answer to a question for hints."""
    value = parse_json(text)
    if value is None:
        text, closed, is_open = split_reasoning(text)
        _count(repairs, "reasoning", closed + is_open)
        values = [found.value for found in find_values(text) if _hints_in(found.value) is not None and not found.is_cut]
        if values and not is_open:
            value = values[-1]
            repairs["fence" if "```" in text else "prose"] += 1
    entries = _hints_in(value)
    if entries is None:
        return ParsedAnswer("truncated" if is_cut else "invalid", repairs=dict(repairs))
    hints = prompts.clean_hints(entry for entry in entries if isinstance(entry, str))
    _count(repairs, "unknown", len(entries) - len(hints))
    status = "truncated" if is_cut else "invalid" if not hints else "repaired" if repairs else "ok"
    return ParsedAnswer(status, hints=hints, repairs=dict(repairs))


def _hints_in(value: Any) -> list[Any] | None:
    """Returns the list of hints in a JSON value, or None."""
    entries = value.get("hints") if isinstance(value, dict) else value
    return entries if isinstance(entries, list) else None


def _count(repairs: Counter[str], kind: str, entries: int) -> None:
    """Adds to the number of entries with a kind of repair, where there are any."""
    if entries > 0:
        repairs[kind] += entries
