"""Reads the body of a chat completion as servers send it: whole or as events, with its text in one of several places.

The text of the message is that of its content, a string, an object or a list of parts; else that of the arguments of a
tool call; else the reasoning, where a server has filed the whole answer there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from alkd_jax.errors import printable
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.token_usage import read_usage

_EVENT = re.compile(r"^data:[ \t]?(.*)$", re.MULTILINE)
_COMMENTS = re.compile(r"\A(?:\s*(?::|#|//).*\n)+")
_REASONING: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thought", "reasoning_details")
_REASONING_PARTS: Final = ("thinking", "reasoning", "thought", "reasoning.text", "redacted_thinking", "summary_text")
_PART_TEXTS: Final = ("text", "content", "output_text", "value", "json")


def parse_completion(raw: bytes, headers: Mapping[str, str] | None = None) -> Answer | str:
    """Parses a chat completion.

    Args:
        raw: body of the HTTP answer, without the API key.
        headers: of the HTTP answer, by which a body that is no JSON is named.

    Returns:
        The answer, or a text that says why there is none.
    """
    value = read_body(raw)
    if value is None:
        return f"an answer of {len(raw)} bytes that is no JSON{_kind_of_body(headers or {})}"
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(choice, dict):
        return "an answer without choices"
    finish_reason, refusal = _text(choice.get("finish_reason")), _text(message.get("refusal"))
    content = _text(message_text(message, finish_reason))
    return Answer(
        content=content,
        finish_reason=finish_reason,
        refusal=refusal or _refusal_part(message.get("content")),
        usage=read_usage(value.get("usage"), has_text=bool(content)),
        model=_text(value.get("model")),
        fingerprint=_text(value.get("system_fingerprint")),
        tier=_text(value.get("service_tier")),
        provider_id=_text(value.get("id")),
        raw=raw,
    )


def read_body(raw: bytes) -> Any:
    """Reads the JSON value of a body: behind a byte order mark or comment lines, before a trailer, or sent as events.

    Returns:
        The value; of events, one completion that is put together from them; None where there is no JSON.
    """
    text = raw.decode(json.detect_encoding(raw), "replace").lstrip("\ufeff")
    value = _json_prefix(_COMMENTS.sub("", text, count=1))
    return _joined_events(map(_json_prefix, _EVENT.findall(text))) if value is None else value


def _json_prefix(text: str) -> Any:
    """Reads the JSON value at the beginning of a text, whatever follows it; returns None where there is none."""
    text = text.strip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    # The decoder raises other errors than JSONDecodeError for thousands of brackets or digits.
    except (ValueError, RecursionError):
        return None


def _joined_events(events: Iterator[Any]) -> Any:
    """Puts the events of a streamed completion together as one completion."""
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {}
    calls: dict[Any, str] = {}
    finish_reason, has_choice = None, False
    for event in events:
        if not isinstance(event, dict):
            continue
        former = whole.get("usage")
        whole |= {name: member for name, member in event.items() if member is not None and name != "choices"}
        whole |= {"usage": former} if _tokens(former) > _tokens(whole.get("usage")) else {}
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                continue
            has_choice, finish_reason = True, choice.get("finish_reason") or finish_reason
            delta = choice.get("delta", choice.get("message"))
            for name, member in delta.items() if isinstance(delta, dict) else ():
                if isinstance(member, str):
                    message[name] = message.get(name, "") + member
                elif name == "tool_calls":
                    for call in member if isinstance(member, list) else ():
                        index = call.get("index") if isinstance(call, dict) else None
                        calls[index] = calls.get(index, "") + "".join(_arguments({name: [call]}))
                elif isinstance(member, list):
                    message[name] = message.get(name, "") + (_joined_parts(member) or "")
    if has_choice:
        message["tool_calls"] = [{"function": {"arguments": arguments}} for arguments in calls.values()]
        whole["choices"] = [{"index": 0, "finish_reason": finish_reason, "message": message}]
    return whole or None


def _tokens(usage: Any) -> int:
    """Returns the sum of the counts in the usage of an event, of which that with the most holds for the whole."""
    return sum(count for count in usage.values() if type(count) is int) if isinstance(usage, dict) else 0


def message_text(message: Mapping[str, Any], finish_reason: str | None) -> str | None:
    """Returns the text of a message: its content and the arguments of tool calls; else its reasoning.

    Args:
        message: of a choice.
        finish_reason: a reasoning that was cut off by the server holds no answer.
    """
    content = message.get("content")
    text = _joined_parts(content)
    if calls := _arguments(message):
        return "\n".join([text, *calls] if text and text.strip() else calls)
    if (text and text.strip()) or finish_reason == "length":
        return text
    for name in _REASONING:
        reasoning = message.get(name)
        found = reasoning if isinstance(reasoning, str) else _joined_parts(reasoning, with_reasoning=True)
        if found and found.strip():
            return found
    return _joined_parts(content, with_reasoning=True) or text


def _joined_parts(content: Any, *, with_reasoning: bool = False) -> str | None:
    """Returns the text of a content: a string, an object, or a list of parts, without those that are reasoning."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return json.dumps(content, ensure_ascii=False)
    if content and all(isinstance(part, str) for part in content):
        joined = "".join(content)
        return joined if _json_prefix(joined) is not None else json.dumps(content, ensure_ascii=False)
    texts = [found for part in content if (found := _part_text(part, with_reasoning)) is not None]
    return "".join(texts) if texts else None


def _part_text(part: Any, with_reasoning: bool) -> str | None:
    """Returns the text of a part; None for reasoning and refusals."""
    if not isinstance(part, dict):
        return part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)
    kind = part.get("type")
    if kind == "refusal" or part.get("thought") is True or (kind in _REASONING_PARTS and not with_reasoning):
        return None
    names = (*_PART_TEXTS, *_REASONING, "summary") if with_reasoning else _PART_TEXTS
    if not isinstance(kind, str) and not isinstance(part.get("text"), str):
        return json.dumps(part, ensure_ascii=False)
    for name in names:
        if isinstance(part.get(name), str):
            return str(part[name])
        if isinstance(part.get(name), dict | list):
            return _joined_parts(part[name], with_reasoning=with_reasoning)
    return None


def _arguments(message: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of the calls of tools, as the texts that they are or as JSON."""
    calls = message.get("tool_calls")
    calls = [*(calls if isinstance(calls, list) else ()), {"function": message.get("function_call")}]
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    found = [function.get("arguments") for function in functions if isinstance(function, dict)]
    return [
        arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        for arguments in found
        if arguments
    ]


def _refusal_part(content: Any) -> str | None:
    """Returns the refusal among the parts of a content, or None."""
    parts = content if isinstance(content, list) else ()
    return next((_text(part.get("refusal")) for part in parts if isinstance(part, dict) and part.get("refusal")), None)


def _kind_of_body(headers: Mapping[str, str]) -> str:
    """Returns how the server calls a body, in parentheses, or an empty text."""
    names = [headers.get("content-type"), headers.get("content-encoding")]
    kinds = ", encoded as ".join(printable(name, width=60) for name in names if name)
    return f" ({kinds})" if kinds else ""


def _text(value: Any) -> str | None:
    """Returns a text that can be encoded in UTF-8, as SQLite requires; lone surrogates are replaced."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
