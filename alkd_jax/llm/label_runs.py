"""Finds labels that follow each other within a line, such as "C07 > C03" or "1. C07 2. C03"."""

import re
from collections.abc import Iterator

from alkd_jax.llm.entries import LABEL, Catalogue, Reading
from alkd_jax.llm.orders import TextList, in_order
from alkd_jax.llm.prompts import MAX_TITLE

_LABEL = re.compile(LABEL)
_JOINT = re.compile(
    r"(?:[\s\"'`*_\[\](){},;、・>|/&+→⇒≻»·•]|->|=>|\band\b|\bthen\b|\bfollowed by\b|\bafter that\b|\bnext\b"
    r"|\bfinally\b|\blastly\b|\bcandidate\b|\bitem\b|\bid\b[:=]?)*",
    re.IGNORECASE,
)
_SENTENCE = re.compile(
    r"\b(?:is|are|as|be|with|recommend|suggest|choose|pick|rank|order|go|first|start|begin)$", re.IGNORECASE
)
_FIRST = re.compile(r"\A[\"'`*_)\]]*\s+first\b", re.IGNORECASE)
_RANK_BEHIND = re.compile(
    r"\s*(?:\(|[:=#]\s*|\(?rank\s*)\s*(?P<rank>[0-9]{1,3})\s*\)?(?P<gap>.*)", re.DOTALL | re.IGNORECASE
)


def find_runs(text: str, catalogue: Catalogue) -> Iterator[TextList]:
    """Yields the lists of two or more labels that follow each other within a line or over lines without bullets."""
    labels = list(_LABEL.finditer(text))
    run: list[tuple[int | None, Reading]] = []
    begin = 0
    for index, match in enumerate(labels):
        number = int(match["number"])
        before = text[labels[index - 1].end() if index else 0 : match.start()]
        behind = text[match.end() : labels[index + 1].start() if index + 1 < len(labels) else len(text)]
        if not run:
            begin = match.start()
        rank = _leading_rank(before if run else before[-12:])
        rank_after, gap = _gap(behind, number, catalogue)
        if not run:
            gap = _FIRST.sub(" ", gap)
        run.append((number, Reading({"label": number}, is_pure=True, rank=rank, rank_after=rank_after)))
        is_last = index + 1 == len(labels) or not _JOINT.fullmatch(gap) or not gap
        if is_last:
            span = text[max(0, begin - MAX_TITLE) : match.end() + MAX_TITLE].casefold()
            holds_title = any(title in span for title in catalogue.titles_with_lists)
            if len(run) > 1 and not holds_title and _is_set_off(text, begin, match.end(), gap, len(run)):
                line_start = text.rfind("\n", 0, begin) + 1
                heading = text[line_start:begin].strip(" \t\"'`*_-[(#0123456789.):") or _line_before(text, line_start)
                if len({n for n, _ in run}) > 1 and "\n" not in text[begin : match.end()].strip():
                    yield TextList(in_order(run), heading)
            run = []


def _leading_rank(gap: str) -> int | None:
    """Returns the number before a label, as in "1. C07"."""
    match = re.search(r"(?<![A-Za-z0-9])([0-9]{1,3})\s*[.):]\s*[\"'`*_(\[]*$", gap)
    return int(match[1]) if match else None


def _gap(text: str, number: int, catalogue: Catalogue) -> tuple[int | None, str]:
    """Splits what stands between a label and the next into the number behind the label, and the rest.

    The candidate's own title and the number before the next label are left out.
    """
    title = catalogue.titles[number] if number < catalogue.size else ""
    lowered = text.casefold()
    place = lowered.find(title) if title else -1
    if 0 <= place and not text[:place].strip(" \t\"'`*_([{:=–—-|,"):
        after = text[place + len(title) :]
        is_numbering = title.isdecimal() and re.match(r"\s*[.):]", after)
        if not after[:1].isalnum() and not is_numbering and not _LABEL.search(text[:place]):
            text = " " + after.lstrip("\"'`*_)]}")
            if not text.strip():
                text = "  "
    rank = None
    if (behind := _RANK_BEHIND.match(text)) and not re.match(r"\s*[.)]\s*[\"'`*_]*$", behind["gap"] or "x"):
        rank, text = int(behind["rank"]), behind["gap"] or " "
    if before := re.fullmatch(r"(.*?)(?<![A-Za-z0-9])(?:#\s*)?[0-9]{1,3}\s*[.):]\s*[\"'`*_(\[]*", text, re.DOTALL):
        text = before[1] or " "
    return rank, text


def _is_set_off(text: str, begin: int, end: int, gap: str, length: int) -> bool:
    """Whether labels in a row are set off from the sentence around them."""
    before = text[text.rfind("\n", 0, begin) + 1 : begin].rstrip(" \t\"'`*_[({#0123456789.)")
    after = gap.partition("\n")[0]
    starts = not before or before[-1] in ":=>→】" or bool(_SENTENCE.search(before))
    ends = not after.strip(" \t\"'`*_])}.,;!") or bool(re.match(r"[\"'`*_\])}]*\.(?:\s|$)|[\"'`*_]*[\])}]", after))
    return (starts and (ends or not gap.strip())) or (length >= 10 and (starts or ends))


def _line_before(text: str, position: int) -> str:
    """Returns the last line with text before a position."""
    return next((line for line in reversed(text[:position].splitlines()) if line.strip(" `*_-")), "")
