"""Recognizes the candidate that one entry of a list names: by its label, by its title, or by both.

A title may look like a label, like a number, or like a whole list. An entry therefore keeps every candidate that it may
mean, and the entries of a list are settled together: those with one meaning show in which style the list is written.
"""

import dataclasses
import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from alkd_jax.llm import prompts
from alkd_jax.llm.ordinals import grade_of, ordinal_word, place_of, sign_digits

_MAX_ENTRY = 2000
_NOUN = r"(?:candidate|item|movie|film|game|product|option|choice|label|entry|code|no|nr|id|rank(?:ed)?|pick|top)"
_JOINT = r"[\U0001f300-\U0001faff\u2600-\u27bf\s\"'`*_~\[\](){}<>#|.,:;=/\\!?–—→•·-]"
LABEL = r"(?<![A-Za-z0-9])(?P<letter>[Cc])[ _-]?(?P<number>[0-9]{1,3})(?![A-Za-z0-9]|\.[0-9])"
_ANY_LABEL = re.compile(LABEL)
_LEAD = re.compile(rf"(?:{_JOINT}|(?<![A-Za-z]){_NOUN}(?:[ _-]?id)?(?![A-Za-z0-9])){{0,12}}?{LABEL}", re.IGNORECASE)
_TAIL = re.compile(
    rf"(?P<before>.*[^\s\w])\s*(?:{_NOUN}(?:[ _-]?id)?(?![A-Za-z0-9])[\s:=#]*){{0,2}}[\"'`*_]*{LABEL}"
    r"[\s\"'`*_)\]}>|.,;]*",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = re.compile(
    r"[^A-Za-z0-9]*(?:(?P<word>rank(?:ed|ing)?|position|place|number|no|nr|top|pick|choice|item|#)[^A-Za-z0-9]*)?"
    r"(?P<rank>[0-9]{1,3})(?:(?:st|nd|rd|th)(?:\s+(?:place|choice|pick))?)?"
    r"(?P<end>[\s\"'`*_]*[.):,;\]}|=\t–—→-]+[\s\"'`*_]*|[*_\"'`]*\s+|[*_]+)",
    re.IGNORECASE,
)
_OUTLINE = re.compile(rf"[\"'`*_(]*(?P<mark>[a-z]|[ivxl]{{1,6}})[.)][*_]*\s+(?=[\"'`*_(\[]*{LABEL})", re.IGNORECASE)
_AFTER = re.compile(
    r"[\s\"'`*_)\]]*(?P<joint>[\s:=#|,([–—→-]*)[\"'`*_]*(?P<word>(?:rank(?:ed)?|position|place|no\.?)[\s:=#]*)?[\"'`*_]*"
    r"(?P<rank>[0-9]{1,3})(?:st|nd|rd|th)?(?![A-Za-z0-9]|\.[0-9])(?P<more>.*)",
    re.IGNORECASE | re.DOTALL,
)
_BULLET = re.compile(r"[-*•·+]\s+")
_RUN_JOINT = re.compile(
    r"(?:[\s\"'`*_\[\](){},;>|/&+→⇒≻»·•]|->|=>|\band\b|\bthen\b|\bfollowed by\b|\bcandidate\b|\bitem\b)+", re.IGNORECASE
)
_SCORE_AFTER = re.compile(
    r"\W*(?:score|points|rating|probability|likelihood|relevance|confidence|chance|match)\W*(?P<score>[0-9]+(?:\.[0-9]+)?)",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\s*[:=|(–—-]+\s*(?P<grade>[A-F])(?P<sign>[+-]?)\)?\s*")
GRADE = "grade"
"""Name of the number that words or letters behind a label stand for."""
_SHARED = re.compile(
    rf"[\s\"'`*_)\]]*(?:[/&=~–—…-]|\.\.+|\b(?:or|to|through|thru|until|bis)\b)[\s\"'`*_(\[]*{LABEL}", re.IGNORECASE
)
_REJECTED = re.compile(
    r"\s*\?+\s*|[\s:=,|()\[\]–—-]+(?:(?:no|false|nein|non|нет|否|いいえ|아니오|excluded?|rejected|not recommended"
    r"|skip(?:ped)?|n/a|removed|already (?:seen|watched|owned|bought))|[✗✘❌])[\s.)\]|]*",
    re.IGNORECASE,
)
_TIE = re.compile(r"\bti(?:e|es|ed)\b", re.IGNORECASE)
_EDGES = " \t\r\n\"'`*_~#()[]{}<>|.,:;=-–—→•·"
_HOMOGLYPHS = str.maketrans(
    {"С": "C", "с": "c", "Ϲ": "C", "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "‑": "-", "−": "-"}
)


class UnclearError(ValueError):
    """A list has more than one meaning; the message is the kind of doubt, by which such answers are counted."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one entry may mean.

    Attributes:
        options: style in which the entry is written → number of the candidate: "label", "tail" (a title before its
            label), "title", "numbered" (a title behind a number); empty for entries that name no candidate.
        is_verified: whether label and title of the candidate are both there.
        is_pure: whether there is nothing but a label.
        several: numbers of the candidates of an entry that lists several labels.
        rank: number before the candidate.
        rank_after: number behind the candidate.
        is_rank: whether the number behind the candidate is called a rank.
        score: number that is called a score.
        is_likelihood: whether the score is called a probability, of which more is better without doubt.
        is_item: whether the entry is set off as one of a list.
        is_crowded: whether it holds further labels beside that which leads it.
        is_unclear: whether it holds several labels of which none leads it.
        outline: letter or Roman numeral before the candidate, in lower case.
        numbers: name → number, or grade, that stands beside the candidate under a name that is neither rank nor score.
        prefix: words before a label that are not its title, as in "Fourth: C07".
    """

    options: dict[str, int] = dataclasses.field(default_factory=dict)
    is_verified: bool = False
    is_pure: bool = False
    several: tuple[int, ...] = ()
    rank: int | None = None
    rank_after: int | None = None
    is_rank: bool = False
    score: int | float | None = None
    is_likelihood: bool = False
    is_item: bool = False
    is_crowded: bool = False
    is_unclear: bool = False
    outline: str = ""
    prefix: str = ""
    numbers: Mapping[str, int | float] = dataclasses.field(default_factory=dict)


class Catalogue:
    """The labels and titles of one question.

    Attributes:
        size: number of candidates.
        k: number of candidates that are to be listed.
        titles: of the candidates, in the form in which they are compared.
        plain_titles: of the candidates, but for upper and lower case as they were shown.
        number_of: title that one candidate alone has → number of the candidate.
    """

    def __init__(self, titles: Sequence[str], others: Sequence[str] = (), *, k: int):
        self.size, self.k = len(titles), min(k, len(titles))
        self.titles = [fold(title) for title in titles]
        counts = Counter(self.titles)
        self.number_of = {title: n for n, title in enumerate(self.titles) if title and counts[title] == 1}
        self.shown = [*titles, *others]
        self.plain_titles = {title.casefold() for title in titles}

    @functools.cached_property
    def titles_with_labels(self) -> re.Pattern[str] | None:
        """Finds the titles that hold a label, in the form in which they are compared."""
        titles = sorted((title for title in self.number_of if labels_in(title)), key=len, reverse=True)
        return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, titles))})(?![^\W_])") if titles else None

    @functools.cached_property
    def lists_in_titles(self) -> list[tuple[int, ...]]:
        """The labels in each of the shown titles that holds several."""
        found = [tuple(labels_in(title)) for title in self.shown if title.upper().count("C") > 1]
        return [labels for labels in found if len(labels) > 1]

    def is_full(self, order: Sequence[int | None]) -> bool:
        """Whether a list names as many candidates as were asked for."""
        return len({number for number in order if number is not None and number < self.size}) >= self.k

    def is_echo(self, labels: Sequence[int | None]) -> bool:
        """Whether labels are those of all candidates as they were shown, or the first in a title that lists several."""
        listed = tuple(labels)
        if self.size > self.k and listed == tuple(range(self.size)):
            return True
        return len(listed) > 1 and any(title[: len(listed)] == listed for title in self.lists_in_titles)

    @functools.cached_property
    def titles_with_lists(self) -> list[str]:
        """The titles that hold several labels, in the form in which they are compared."""
        return [folded for title in self.shown if len(labels_in(title)) > 1 and (folded := fold(title))]

    def is_title(self, line: str) -> bool:
        """Whether a line is nothing but a title, with or without a number or a bullet before it."""
        plain = line.strip().casefold()
        kinds = {plain, plain.strip("\"'"), _without_number(plain), re.sub(r"^[-*•]\s+", "", plain)}
        return not kinds.isdisjoint(self.plain_titles)

    def has_exact_title(self, number: int, text: str) -> bool:
        """Whether a text is the title of a candidate; a number alone may be that of the list, as in "2. C07"."""
        if number >= self.size or not self.titles[number] or fold(text) != self.titles[number]:
            return False
        is_numbering = re.fullmatch(r"\W*[0-9]+[\"'*_]*(?:[.):,;\]].*|\s+\W{0,2})", text, re.DOTALL)
        return not (self.titles[number].isdecimal() and is_numbering and "(" not in text)

    def has_own_title(self, number: int, text: str) -> bool:
        """Whether a text is, or begins with, the title of a candidate; a long beginning of the title is enough."""
        if number >= self.size:
            return False
        title, text = self.titles[number], fold(text)
        if text.startswith(title):
            return not text[len(title) :][:1].isalnum()
        shortened = text.rstrip(".… ")
        return len(shortened) >= 8 and title.startswith(shortened)


def ascii_digits(text: str) -> str:
    """Normalizes a text by NFKC and writes the decimal digits of every script as 0-9, and look-alikes of C as C."""
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", sign_digits(text).replace("\ufe0f\u20e3", ".").replace("\u20e3", "."))
    digits = "".join(c if c.isascii() or not c.isdecimal() else str(unicodedata.decimal(c)) for c in normal)
    return digits.translate(_HOMOGLYPHS)


def _without_number(text: str) -> str:
    """Removes the number that leads an entry."""
    match = _NUMBER.match(text)
    return text[match.end() :] if match else text


@functools.lru_cache(maxsize=2**14)
def fold(title: str) -> str:
    """Returns a title in the form in which titles are compared."""
    return ascii_digits(prompts.clean_title(title)).casefold().strip(_EDGES) if title.strip() else ""


def labels_in(text: str) -> list[int]:
    """Returns the numbers of all labels in a text, in its order."""
    return [int(match["number"]) for match in _ANY_LABEL.finditer(ascii_digits(text))]


def read_entry(text: str, catalogue: Catalogue) -> Reading:
    """Reads one entry: an element of a JSON list, a line, or a row."""
    text = ascii_digits(text[:_MAX_ENTRY]).strip()
    bullet = _BULLET.match(text)
    start = bullet.end() if bullet else 0
    if outline := _OUTLINE.match(text, start):
        reading = _read(f"- {text[outline.end() :]}", catalogue)
        return dataclasses.replace(reading, outline=outline["mark"].lower())
    if (label := _ANY_LABEL.search(text)) and label.start() > start:
        before = text[start : label.start()]
        is_place = (
            bool(_foreign_words(before, int(label["number"]), catalogue)) and fold(before) not in catalogue.titles
        )
        if is_place and (place := place_of(before) or ordinal_word(before)) is not None:
            return _read(f"{place}. {text[label.start() :]}", catalogue)
    return _read(text, catalogue)


def _read(text: str, catalogue: Catalogue) -> Reading:
    """Reads an entry whose digits are ASCII, without outline."""
    numbered = _NUMBER.match(text)
    rest = text[numbered.end() :] if numbered else text
    options: dict[str, int] = {}
    for style, title in (("title", text), ("numbered", rest if numbered else "")):
        if (number := catalogue.number_of.get(fold(title))) is not None:
            options[style] = number
    doubts: dict[str, int] = {}
    if not options and catalogue.titles_with_labels is not None:
        for match in catalogue.titles_with_labels.finditer(text.casefold()):
            doubts["numbered" if match.start() and numbered else "title"] = catalogue.number_of[match[0]]
    lead = _LEAD.match(text) or (_LEAD.match(rest) if numbered else None)
    rank = int(numbered["rank"]) if numbered else None
    is_item = bool(re.match(r"\s*(?:[-*•·+]\s|[\"'`*_#(\[|]*[0-9]{1,3}[\"'`*_]*[.):\]|])", text))
    if lead is None:
        return _read_tail(text, rest, options, doubts, rank, is_item, catalogue)
    number, after, rank = int(lead["number"]), lead.string[lead.end() :], None if lead.string is text else rank
    options |= doubts | {"label": number}
    if lead.string is rest and catalogue.has_exact_title(number, text[: len(text) - len(rest) + lead.start("letter")]):
        return Reading({"label": number}, is_verified=True, is_item=True)
    tail = _TAIL.fullmatch(text)
    if tail is not None and tail.start("number") > lead.end():
        other = int(tail["number"])
        before = tail["before"]
        if catalogue.has_exact_title(other, before) or catalogue.has_exact_title(other, _without_number(before)):
            options["tail"] = other
    is_own = catalogue.has_own_title(number, after) and bool(fold(after))
    is_doubtful = bool(_REJECTED.fullmatch(after)) or _is_shared(after, rank)
    if options.get("tail") not in (None, number) if is_own else is_doubtful:
        return Reading(is_unclear=True, is_item=is_item)
    several = () if is_own else tuple(_run_numbers(rest if numbered else text))
    if is_own:
        options = {"label": number}
    elif "tail" in options:
        return Reading({"tail": options["tail"]}, is_verified=True, rank=rank, is_item=is_item)
    behind = None if is_own and fold(after) == catalogue.titles[number] else _AFTER.match(after)
    is_pure = not after.strip(_EDGES)
    word, score, numbers = (None, None, {}) if is_own else _behind(after)
    return Reading(
        options,
        is_verified=is_own,
        is_pure=is_pure,
        several=several if len(several) > 1 else (),
        is_crowded=not is_own and bool(_ANY_LABEL.search(after)),
        rank=rank,
        rank_after=word
        or (
            int(behind["rank"])
            if behind and (behind["joint"] or behind["word"] or behind["more"].strip() == ".")
            else None
        ),
        is_rank=bool(word or (behind and behind["word"])),
        numbers=numbers,
        score=score,
        is_item=is_item
        or is_pure
        or is_own
        or len(options) > 1
        or bool(re.match(r"[\"'`*_\])]*\s*[:|(\[,–—=-]", after)),
    )


def _is_shared(after: str, rank: int | None) -> bool:
    """Whether what stands behind a label gives its place to another label, too."""
    return bool((rank is not None and _SHARED.match(after)) or (labels_in(after) and _TIE.search(after)))


def _behind(after: str) -> tuple[int | None, float | None, dict[str, int | float]]:
    """Returns the ordinal, the score and the grade that are written in words behind a label."""
    scored, grade, letter = _SCORE_AFTER.match(after), grade_of(after), _LETTER.fullmatch(after)
    if letter:
        grade = ord("F") - ord(letter["grade"]) + {"+": 0.3, "-": -0.3}.get(letter["sign"], 0.0)
    numbers: dict[str, int | float] = {} if grade is None else {GRADE: grade}
    return ordinal_word(after), float(scored["score"]) if scored else None, numbers


def _read_tail(
    text: str,
    rest: str,
    options: dict[str, int],
    doubts: dict[str, int],
    rank: int | None,
    is_item: bool,
    catalogue: Catalogue,
) -> Reading:
    """Reads an entry that does not begin with a label."""
    tail = _TAIL.fullmatch(text)
    if tail is None:
        rank = rank if "title" not in options or "numbered" in options else None
        return Reading(options, rank=rank, is_item=is_item or bool(options))
    number, before = int(tail["number"]), tail["before"]
    if catalogue.has_exact_title(number, before):
        return Reading({"tail": number}, is_verified=True, is_item=True)
    if catalogue.has_exact_title(number, before[len(text) - len(rest) :]):
        return Reading({"tail": number}, is_verified=True, rank=rank, is_item=True)
    if len(labels_in(text)) > 1:
        return Reading(options, is_unclear=not options, rank=rank, is_item=is_item or bool(options))
    is_set_off = is_item or bool(options) or before[-1] in "([|"
    prefix = "" if rank is not None or options or doubts else _foreign_words(before, number, catalogue)
    return Reading(options | doubts | {"tail": number}, rank=rank, is_item=is_set_off, prefix=prefix)


def _foreign_words(before: str, number: int, catalogue: Catalogue) -> str:
    """Returns the words before a label, or nothing where they share one with its title."""
    words = fold(before)
    title = set(re.findall(r"\w{3,}", catalogue.titles[number])) if number < catalogue.size else set()
    return "" if title & set(re.findall(r"\w{3,}", words)) else words


def _run_numbers(text: str) -> list[int]:
    """Returns the numbers of a text that lists labels and holds nothing else; else none."""
    labels = list(_ANY_LABEL.finditer(text))
    gaps = [text[a.end() : b.start()] for a, b in itertools.pairwise(labels)]
    if not labels or text[: labels[0].start()].strip(_EDGES) or text[labels[-1].end() :].strip(_EDGES):
        return []
    return [int(match["number"]) for match in labels] if all(map(_RUN_JOINT.fullmatch, gaps)) else []
