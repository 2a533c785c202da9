"""Finds JSON values in a text: whole, fenced, in prose, written as Python or with comments, or cut off."""

import ast
import dataclasses
import json
import re
from typing import Any, Final

_MAX_STARTS: Final = 2000
_MAX_LITERAL: Final = 20_000
_OPENING: Final = re.compile(r'[{\[]|"(?=\s*[{\[]\s*(?:\\[n"]|\s)*[\\{\[])')
_SMART = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "\u00a0": " "})
_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/|(?<=[\s,\[{])#[^\n]*', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(\s*[}\]])', re.DOTALL)
_BARE_NAME = re.compile(r'("(?:[^"\\]|\\.)*")|(?<=[{,\s])([A-Za-z_]\w*)(?=\s*:)', re.DOTALL)
_DECODER = json.JSONDecoder()


@dataclasses.dataclass(frozen=True)
class Found:
    """A JSON value in a text.

    Attributes:
        value: the value.
        start: position of its first character.
        end: position behind its last character.
        is_cut: whether the text or its syntax ended before the value did, so that its last entries are missing.
    """

    value: Any
    start: int
    end: int
    is_cut: bool = False


def parse_json(text: str) -> Any:
    """Parses JSON; returns None where the text is none."""
    try:
        return json.loads(text)
    # The parser raises other errors than JSONDecodeError for thousands of brackets or digits.
    except (ValueError, RecursionError):
        return None


def find_values(text: str) -> list[Found]:
    """Finds the outermost objects and lists of a text, in its order.

    Where brackets begin no complete value, the largest value is taken that only lacks its end or uses the syntax of
    Python or JavaScript.
    """
    found: list[Found] = []
    position, starts = 0, 0
    while (opening := _OPENING.search(text, position)) and starts < _MAX_STARTS:
        starts += 1
        start = opening.start()
        value = _decode(text, start)
        if text[start] == '"':
            inner = parse_json(value.value) if value else None
            value = Found(inner, start, value.end) if value and isinstance(inner, dict | list) else None
        elif value is None:
            value = _decode_loosely(text, start)
        if value is None:
            position = start + 1
        else:
            found.append(value)
            position = value.end
    return found


def _decode(text: str, start: int) -> Found | None:
    """Reads the complete value at a position."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return Found(value, start, end)


def _decode_loosely(text: str, start: int) -> Found | None:
    """Reads the value at a position in another syntax, or without its end."""
    end, safe, closing = _extent(text, start)
    if end is not None and end - start <= _MAX_LITERAL:
        value = _parse_loosely(text[start:end])
        return None if value is None else Found(value, start, end)
    if end is None and safe is not None:
        value = parse_json(text[start:safe] + closing)
        if value is None:
            value = _parse_loosely((text[start:safe] + closing)[:_MAX_LITERAL])
        return None if value is None else Found(value, start, len(text), is_cut=True)
    return None


def _parse_loosely(text: str) -> Any:
    """Parses an object or list with comments, trailing commas, bare names, single or typographic quotes."""
    plain = _COMMENT.sub(lambda match: match[1] or "", text)
    for straight in (plain, plain.translate(_SMART)):
        tidy = _TRAILING_COMMA.sub(lambda match: match[1] or match[2], straight)
        named = _BARE_NAME.sub(lambda match: match[1] or f'"{match[2]}"', tidy)
        for candidate in (tidy, named):
            if (value := parse_json(candidate)) is not None:
                return value
        try:
            value = ast.literal_eval(tidy)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(value, dict | list | tuple):
            return list(value) if isinstance(value, tuple) else value
    return None


def _extent(text: str, start: int) -> tuple[int | None, int | None, str]:
    """Follows the brackets from a position.

    Returns:
        The position behind the closing bracket, or None where there is none; the position behind the last complete
        entry of the outermost list that has one, or None; and the brackets that close a text cut there.
    """
    stack: list[str] = []
    safe: dict[int, int] = {}
    quote = ""
    position, length = start, len(text)
    while position < length:
        c = text[position]
        if quote:
            if c == "\\":
                position += 1
            elif c == quote:
                quote = ""
                if stack[-1] == "]":
                    safe[len(stack)] = position + 1
        elif c == '"':
            quote = c
        elif c in "{[":
            stack.append("}" if c == "{" else "]")
            safe.pop(len(stack), None)
            if len(stack) > 500:
                return None, None, ""
        elif c in "}]":
            if c != stack[-1]:
                break
            stack.pop()
            if not stack:
                return position + 1, None, ""
            if stack[-1] == "]":
                safe[len(stack)] = position + 1
        position += 1
    for depth in range(1, len(stack) + 1):
        if stack[depth - 1] == "]" and depth in safe:
            return None, safe[depth], "".join(reversed(stack[:depth]))
    return None, None, ""
