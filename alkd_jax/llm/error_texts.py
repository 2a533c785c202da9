"""The text of an error as servers send it: an object, a list, a plain text, a page of HTML, or an answer's part."""

import dataclasses
import html
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from alkd_jax.llm.rate_limits import retry_after

_MAX_TEXT = 4000
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_WAIT = re.compile(
    r"(?:try again|retry|wait|available|resets?)\b[^.0-9]{0,30}?((?:[0-9]+(?:\.[0-9]+)?\s*"
    r"(?:milliseconds?|msecs?|ms|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s|days?|d)\b\s*(?:and\s*)?)+|"
    r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[hms]))+)",
    re.IGNORECASE,
)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(milliseconds?|msecs?|ms|h|m|s|d)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "mi": 0.001, "h": 3600.0, "m": 60.0, "s": 1.0, "d": 86400.0}
_TEXT_MEMBERS = ("message", "msg", "detail", "details", "error_description", "error_msg", "reason", "title", "raw")
_CODE_MEMBERS = ("code", "type", "error_code", "err_code")


@dataclasses.dataclass(frozen=True)
class ErrorText:
    """What an error says.

    Attributes:
        message: the text, in one line.
        codes: codes and types, such as "insufficient_quota".
        params: names of the parts of the request that it is about.
        status: the HTTP status that the body names; None where it names none.
        status_word: a status in words, such as "RESOURCE_EXHAUSTED".
        waits: seconds to wait that the body names.
        headers: of an HTTP answer that the body repeats.
        is_error: whether the body is an error at all, and no answer.
    """

    message: str = ""
    codes: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    status: int | None = None
    status_word: str = ""
    waits: tuple[float, ...] = ()
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_error: bool = False

    @property
    def words(self) -> str:
        """Message and codes together."""
        return " ".join([self.message, *self.codes, self.status_word])

    @property
    def shown(self) -> str:
        """Code and message for a person, shortened to one line."""
        code = next((code for code in self.codes if not code.isdecimal()), "") or self.status_word
        return (f"{code}: {self.message}" if code and self.message else code or self.message)[:500]

    def wait(self, now: float) -> float | None:
        """Returns the seconds to wait that the body names, at `now` seconds since the epoch, or None."""
        named = max(self.waits, default=None)
        if named is None and (match := _WAIT.search(self.message)):
            parts = _PART.findall(match[1])
            named = sum(float(number) * _SECONDS[_unit(unit)] for number, unit in parts)
        if named is None:
            named = retry_after(self.headers, now=now)
        return named if named is not None and 0 < named < float("inf") else None


def _unit(text: str) -> str:
    text = text.lower()
    return "ms" if text.startswith(("ms", "milli")) else text[0]


def read_error(raw: bytes) -> ErrorText:
    """Reads the body of an error.

    Args:
        raw: of any shape; JSON, text or HTML.
    """
    text = raw[:200_000].decode("utf-8", "replace").lstrip("\ufeff").strip()
    try:
        value = json.loads(text.removeprefix("data:")) if text else None
    except (ValueError, RecursionError):
        return ErrorText(message=_line(_TAGS.sub(" ", html.unescape(text)) if "<" in text else text))
    holders = list(_holders(value))
    is_error = bool(holders) and not (isinstance(value, dict) and _has_content(value))
    messages, codes, params, waits = list[str](), list[str](), list[str](), list[float]()
    statuses, words, headers = list[int](), list[str](), dict[str, str]()
    for part in _objects(holders or [value]):
        messages += [part[name] for name in _TEXT_MEMBERS if isinstance(part.get(name), str)]
        messages += [part["error"]] if isinstance(part.get("error"), str) else []
        codes += [str(part[name]) for name in _CODE_MEMBERS if isinstance(part.get(name), str | int)]
        statuses += [found for name in ("code", "status", "status_code") if (found := _status(part.get(name)))]
        words += [part["status"]] if isinstance(part.get("status"), str) else []
        for name in ("param", "loc", "field", "parameter"):
            member = part.get(name)
            params += [str(entry) for entry in (member if isinstance(member, list) else [member]) if entry is not None]
        for name in ("retryDelay", "retry_after", "retry_after_seconds"):
            waits += _seconds(part.get(name))
        if isinstance(part.get("headers"), dict):
            headers |= {str(name).lower(): str(text) for name, text in part["headers"].items()}
    texts = [entry for entry in holders if isinstance(entry, str)] + messages
    return ErrorText(
        _line(". ".join(dict.fromkeys(texts)) or (text if holders or not isinstance(value, dict) else "")),
        tuple(dict.fromkeys(codes)),
        tuple(params),
        next(iter(statuses), None),
        next(iter(words), ""),
        tuple(waits),
        headers,
        is_error,
    )


def _holders(value: Any) -> Iterator[Any]:
    """Yields the values that hold an error in the body of an answer, whatever its shape."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value[:20]:
            yield from _holders(entry)
    elif isinstance(value, dict):
        for name in ("error", "errors", "detail", "Error"):
            if value.get(name):
                yield value[name]
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict) and choices[0].get("error"):
            yield choices[0]["error"]
        plain = {"message", "msg", "error_msg"} & value.keys()
        if plain and "choices" not in value and not value.get("error"):
            yield value


def _has_content(value: Mapping[str, Any]) -> bool:
    """Whether the body of an answer has a message with content."""
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return isinstance(message, dict) and any(message.get(name) for name in ("content", "tool_calls", "refusal"))


def _objects(values: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yields the objects in JSON values, from outside inwards."""
    if depth > 6:
        return
    for value in values:
        if isinstance(value, str) and value[:1] in "{[" and value:
            # Gateways put the provider's error into theirs as a text.
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if isinstance(value, dict):
            yield value
            yield from _objects(list(value.values())[:50], depth + 1)
        elif isinstance(value, list):
            yield from _objects(value[:50], depth + 1)


def _status(value: Any) -> int | None:
    """Returns an HTTP status of an error, from a number or digits."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:4])
    return value if type(value) is int and 400 <= value < 600 else None


def _seconds(value: Any) -> list[float]:
    """Returns seconds from a number, or from a text such as "34s", in a list that is empty where there are none."""
    if isinstance(value, str):
        value = value.strip().removesuffix("s")
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return []
    return [seconds] if 0 < seconds < float("inf") else []


def _line(text: str) -> str:
    """Makes a text one line that is not endless."""
    return " ".join(text[: 4 * _MAX_TEXT].split())[:_MAX_TEXT]
