"""Numbers that are written as signs, letters or places: circled digits, medals, outlines, "第1名", "Platz 4"."""

import re
from collections.abc import Sequence

_CIRCLED = ((0x2460, 1, 20), (0x2776, 1, 10), (0x2780, 1, 10), (0x278A, 1, 10), (0x24EB, 11, 10), (0x24F5, 1, 10))
"""Code point of the first sign, its number, and how many signs follow each other."""
_SIGNS = {begin + n: f" {first + n}. " for begin, first, size in _CIRCLED for n in range(size)} | {
    0x1F947 + n: f" {n + 1}. " for n in range(3)
}
_CHINESE = "一二三四五六七八九十"
_PLACE = re.compile(
    r"[\s\"'*_(\[-]*(?:(?P<word>第|제|platz|rang|puesto|posici[óo]n|posizione|posto|lugar|plaats|plats|miejsce|m[íi]sto"
    r"|ме[сc]то|номер|№|s[ıi]ra|peringkat|hạng|thứ|المركز|المرتبة|priority|choice|pick)[\s.:#_-]*)?"
    rf"(?P<number>[0-9]{{1,3}}|[{_CHINESE}]{{1,3}})\s*"
    r"(?P<ending>(?:位|名|等|위|등|번째|ers?|[èe]re|[èe]me|e|[ºª°]|o|a|-?[еяй]{1,2}|-?ое)"
    r"(?![a-zа-я])(?:\s*(?:ме[сc]то|lugar|puesto|posto|place|miejsce))?|\.\s*(?:platz|plats|plaats|miejsce|m[íi]sto|s[ıi]ra))?"
    r"[\s:.,=)\]*_–—、-]*",
    re.IGNORECASE,
)
_WORDS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL_WORD = re.compile(
    rf"\W*(?:my |the |in )*(?P<word>{'|'.join(_WORDS)})(?:\s+(?:choice|place|pick|position|rank))?\W*", re.IGNORECASE
)
_GRADES = (
    ("very low", "very unlikely", "lowest", "very weak", "very poor"),
    ("low", "unlikely", "weak", "poor"),
    ("medium", "moderate", "mid", "fair", "average", "possible"),
    ("high", "likely", "strong", "good"),
    ("very high", "very likely", "highest", "very strong", "very good", "excellent"),
)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50}


def sign_digits(text: str) -> str:
    """Writes circled digits and medals as the numbers of a list."""
    return text.translate(_SIGNS)


def place_of(text: str) -> int | None:
    """Returns the place that a text such as "第1名:", "Platz 4:" or "2-е ме[сc]то —" stands for, or None."""
    match = _PLACE.fullmatch(text)
    if match is None or not (match["word"] or match["ending"]):
        return None
    if not match["number"].isascii():
        tens, ten, ones = match["number"].rpartition("十")
        digits = [_CHINESE.find(sign) + 1 for sign in (tens, ones) if sign]
        if any(len(sign) > 1 for sign in (tens, ones)) or 10 in digits:
            return None
        return (10 * (_CHINESE.find(tens) + 1 if tens else 1) if ten else 0) + (digits[-1] if ones else 0)
    return int(match["number"])


def ordinal_word(text: str) -> int | None:
    """Returns the number that a text such as "(second)" or "second choice" stands for, or None."""
    match = _ORDINAL_WORD.fullmatch(text)
    return _WORDS.index(match["word"].lower()) + 1 if match else None


def grade_of(text: str) -> float | None:
    """Returns what words such as "very low", or stars, are worth, never a whole number; None for others."""
    words = re.sub(r"[\W_]+", " ", text).strip().lower()
    stars = sum(map(text.count, "★⭐"))
    return stars + 0.5 if stars else next((n + 0.5 for n, names in enumerate(_GRADES) if words in names), None)


def outline_ranks(marks: Sequence[str]) -> list[int | None]:
    """Returns the numbers that the letters or Roman numerals before the entries of a list stand for."""
    known = [mark for mark in marks if mark]
    roman = [_roman(mark) for mark in known]
    if None in roman or not _counts(roman):
        roman = [ord(mark) - ord("a") + 1 if len(mark) == 1 else None for mark in known]
    numbers = iter(roman)
    return [next(numbers) if mark else None for mark in marks]


def _counts(numbers: Sequence[int | None]) -> bool:
    """Whether numbers are those of a list, in any order."""
    return sorted(number or 0 for number in numbers) == list(range(1, len(numbers) + 1))


def _roman(mark: str) -> int | None:
    """Returns the value of a Roman numeral below 90, or None."""
    if not mark or set(mark) - _ROMAN.keys():
        return None
    values = [_ROMAN[letter] for letter in mark]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))
