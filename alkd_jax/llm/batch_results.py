"""What a batch has brought: the lines of its files, why it failed, and how many of its answers are missing."""

import json
from typing import Any, Final

from alkd_jax.llm.store import Store

GONE: Final = "gone"
"""Status of a batch that the server does not know any more."""
_FAILED: Final = "batch failed: "
_FOR_THE_MOMENT = ("token_limit_exceeded", "rate_limit", "try again", "enqueued")


def parse_line(line: bytes) -> tuple[str | None, int | None, Any]:
    """Returns custom_id, HTTP status and body of a line of a batch's file, each None where it is missing."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None, None, None
    if not isinstance(value, dict):
        return None, None, None
    response, key = value.get("response"), value.get("custom_id")
    key = key if isinstance(key, str) else None
    if not isinstance(response, dict):
        return key, None, {"error": value.get("error")}
    return key, response.get("status_code") if type(response.get("status_code")) is int else None, response.get("body")


def num_lost(batch: Any, num_found: int, num_left: int) -> int:
    """Counts the requests that a batch has answered, and so billed, though they are not in its files.

    Args:
        batch: as the SDK returns it; None where it is gone.
        num_found: requests whose outcome was in the files.
        num_left: the other requests.

    Returns:
        A number up to `num_left`: all where the server does not count, unless the batch was never begun.
    """
    counts = getattr(batch, "request_counts", None)
    if counts is not None and type(counts.completed) is int and type(counts.failed) is int:
        return max(0, min(num_left, counts.completed + counts.failed - num_found))
    return 0 if getattr(batch, "status", None) == "failed" else num_left


def reason(batch: Any, status: str) -> str:
    """Returns why requests of a batch were not done, in one line."""
    data = getattr(getattr(batch, "errors", None), "data", None) or []
    texts = []
    for error in data[:3]:
        line = f" (line {error.line})" if getattr(error, "line", None) is not None else ""
        texts.append(f"{getattr(error, 'message', None) or getattr(error, 'code', None) or 'no reason given'}{line}")
    told = "; ".join(texts) or "the server gives no reason"
    if status != "failed":
        return f"batch {status}"
    codes = " ".join(f"{getattr(error, 'code', '')} {getattr(error, 'message', '')}" for error in data).lower()
    is_passing = any(word in codes for word in _FOR_THE_MOMENT)
    return f"batch put off: {told}" if is_passing else f"{_FAILED}{told}"


def failed_keys(store: Store) -> dict[str, str]:
    """Returns key of a request → reason, for requests whose last batch the server has called faulty."""
    query = (
        "SELECT a.key, a.error FROM attempts a WHERE a.state = 'released' AND a.batch IS NOT NULL "
        "AND a.id = (SELECT MAX(b.id) FROM attempts b WHERE b.key = a.key)"
    )
    failed = ((key, str(error)) for key, error in store.read(query))
    return {key: error.removeprefix(_FAILED) for key, error in failed if error.startswith(_FAILED)}
