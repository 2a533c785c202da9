"""What a server's refusal means: a fault of the question, of the run, or of the moment.

Providers use the same HTTP status for different faults, put errors into answers with status 200, and write bodies of
any shape. The meaning is therefore read from the words, and from the status only where the words say nothing.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from alkd_jax.llm.answers import Answer
from alkd_jax.llm.error_texts import ErrorText, read_error
from alkd_jax.llm.rate_limits import retry_after


@dataclasses.dataclass(frozen=True)
class Reply:
    """The outcome of one request.

    Attributes:
        outcome: "answer"; "rate_limited", refused for the moment; "unbilled", failed before it could be billed;
            "possibly_billed", failed when it may have been billed; "refused_field", the server does not take `field`;
            "bad_request", this question cannot be asked; "fatal", no question can be asked.
        answer: the answer, where there is one.
        error: one line without secrets.
        http_status: of the server's answer, where there is one.
        wait: seconds to wait that the server asked for.
        field: of the request's body, which the server refuses.
        is_charged: whether a failure counts as possibly billed.
        is_certain: False where a fatal error is only read from its status, and may be the question's.
        is_timeout: whether the server took too long or is too busy, so that fewer requests should be in flight.
    """

    outcome: str
    answer: Answer | None = None
    error: str = ""
    http_status: int | None = None
    wait: float | None = None
    field: str | None = None
    is_charged: bool = False
    is_certain: bool = True
    is_timeout: bool = False


_Words = re.Pattern[str]


def _words(*alternatives: str) -> _Words:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_NO_CREDIT_CODE = _words(
    "insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated", "credit_exhausted"
)
_NO_CREDIT = _words(
    r"insufficient[ _-]*(credit|balance|fund|quota)",
    r"(not enough|no|out of|more|purchase|buy|add|run out of|lack of|without) (?:[a-z]+ )?(credit|fund)s?\b",
    r"(balance|credit)s?\b.{0,40}(too low|insufficient|exhausted|depleted|used up|empty|negative|ran out|run out)",
    r"payment required|account.{0,30}(in arrears|overdue)|(overdue|outstanding) (payment|balance|invoice)",
    r"(spend|spending|usage|billing|budget)[ _-]*(cap|limit|hard limit).{0,40}(reached|exceeded|hit)",
    r"(reached|exceeded|hit).{0,40}(spend|spending|billing|budget|monthly)[a-z ]*(cap|limit)",
    r"budget has been exceeded|exceeded ?budget|top[ -]?up|recharge",
)
_QUOTA = _words(r"quota.{0,60}(exceed|exhaust|reached|used up|depleted)", r"(exceed|exhaust|out of).{0,60}quota")
_LONG_QUOTA = _words(r"per[ _-]?(day|month|week)", r"\b(daily|monthly|weekly)\b", r"\((rpd|tpd)\)")
_BAD_OUTPUT = _words(
    r"json_validate_failed|failed_generation|failed to generate (valid )?json|output (that )?(does|did) not match"
)
"""A model has answered, and the server cannot use the answer."""
_RATE = _words(
    r"rate[ _-]?limit",
    r"too many (requests|concurrent)|per[ _-]?min(ute)?\b|per[ _-]?second\b|\b[rt]pm\b|concurren(t|cy)",
    r"(try|retry) again (in|later|after)|retry (in|after)|throttl",
    r"temporar(y|ily)|overloaded|at capacity|server (is )?busy|resource[ _]exhausted|queue is full|slow down",
)
_LOADING = _words(r"loading|warming up|starting up|not ready|cold start|being loaded|is starting")
_TOO_LONG = _words(
    r"context[ _-]?(length|window|size|limit)|maximum context|max_model_len|context_length",
    r"(prompt|input|messages?|request|conversation|text|query)\b.{0,40}\btoo (long|large|big|many tokens)",
    r"too many (input |prompt )?tokens|(request|payload|entity|content|body) too large",
    r"(reduce|shorten).{0,30}(length|prompt|messages?|input|tokens)",
    r"exceeds?.{0,60}(n_ctx|context|input tokens|token limit|maximum (input|prompt))",
    r"string_above_max_length|prompt_too_long|input_too_long|request_too_large",
)
_REQUESTED = re.compile(r"limit:?\s*([0-9][0-9,]*)\D+requested:?\s*([0-9][0-9,]*)", re.IGNORECASE)
_MODERATED = _words(
    r"moderat(ed|ion)|content[ _-]?(policy|polic|filter|management|safety|violation)|content_?filter",
    r"(input|prompt|request|content|text|message|title)s?\b.{0,60}(flagged|blocked|prohibited|inappropriate|unsafe|"
    r"sensitive|violat)",
    r"(flagged|blocked|rejected).{0,60}(input|prompt|content|safety|polic)",
    r"responsible ?ai|safety (system|filter|setting|polic|reason)|data_?inspection|inappropriate content|"
    r"sensitive_words|usage polic|jailbreak|prohibited_content",
)
_ACCOUNT = _words(
    r"(account|organi[sz]ation|subscription|workspace)\b.{0,60}(deactivated|disabled|suspended|"
    r"terminated|banned|blocked|not active|inactive|closed|restricted)",
    r"(incorrect|invalid|missing|no|wrong|expired|revoked|bad|disabled).{0,20}(api|access|auth)[ _-]*(key|token)",
    r"(api|access)[ _-]*(key|token).{0,60}(invalid|incorrect|expired|revoked|not valid|missing|disabled|not found)",
    r"invalid_api_key|authentication|unauthori[sz]ed|unauthenticated|permission[ _]denied|not authori[sz]ed|"
    r"do(es)? not have (access|permission)|country, region|region is not supported|unsupported_country|"
    r"no_db_connection|no connected db",
)
_NO_MODEL = _words(
    r"model_?not_?found|model_not_available|no such model|unknown model|invalid model|model_decommissioned",
    r"\bmodel\b[^.]{0,120}(not (be )?found|does not exist|doesn't exist|not available|not supported on|unavailable|"
    r"deprecated|decommissioned|retired|been removed|shut ?down|no longer|not loaded|not installed|not a valid)",
    r"no (endpoints?|providers?|deployments?|healthy) (found|available|deployments?)|try pulling it",
    r"not a valid model|is not a chat model",
)
_REFUSES = _words(
    r"(un|not |n't |isn't |aren't )(support|recogni[sz]|expect|permit|allow|accept|implement)",
    r"unsupported|unrecogni[sz]ed|unexpected|unknown|extra (inputs|fields?|arguments?)|no longer",
    r"invalid|only the default|deprecated|\bmust\b|cannot|can't|unavailable|not available|incompatible|"
    r"not compatible|does not work|failed to (parse|compile)|use '?max_|is disabled|not enabled|refused|forbidden",
)
_BOUND = _words(
    r"too (large|small|high|low)|at most|at least|less than|greater than|minimum|maximum|exceeds?|up to|positive|"
    r"between|range|larger|smaller|higher|lower|below|above"
)
_FIELD_WORDS = {
    "messages": r"messages\W+[0-9]+\W+role|system[_ -]?(role|messages?|prompts?|instructions?)|role\W{0,3}system|"
    r"developer[_ ]?instruction|roles must alternate",
    "max_completion_tokens": r"max_completion_tokens|maxcompletiontokens",
    "max_tokens": r"max_tokens|maxtokens|max_new_tokens",
    "response_format": r"response[_ ]?format|json[_ ]?(schema|object|mode)|structured[_ ]outputs?|guided|grammar|"
    r"response_?schema",
    "temperature": r"temperature|sampling param",
    "seed": r"\bseed\b",
    "reasoning_effort": r"reasoning[_ .]?effort|\beffort\b|thinking[_ ]?(level|config|budget)",
}
_WORDS_OF_STATUS = {
    "RESOURCE_EXHAUSTED": 429,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_NEVER_RUN = (503, 529)
"""Statuses from 500 on with which a server says that it has not begun to answer."""


def holds_error(raw: bytes) -> bool:
    """Returns whether the body of an answer with status 200 is an error."""
    return read_error(raw).is_error


def classify(status: int, raw: bytes, headers: Mapping[str, str], *, body: Mapping[str, Any], now: float) -> Reply:
    """Classifies an error by what it means for the question, for the run, and for the bill.

    Args:
        status: of the HTTP answer.
        raw: its body, without secrets.
        headers: its headers, name in lower case → text.
        body: of the request.
        now: seconds since the epoch.

    Returns:
        The outcome; one that may have been billed has `is_charged`.
    """
    text = read_error(raw)
    shown = f"HTTP {status} {text.shown}".strip()
    meant = status if status >= 300 else text.status or _WORDS_OF_STATUS.get(text.status_word) or 0
    wait = retry_after(headers, now=now)
    if wait is None:
        wait = text.wait(now)
    if status < 300:
        # Without a status of its own, an error within an answer may follow work that was done.
        charged = meant == 408 or not (400 <= meant < 500 or meant in _NEVER_RUN)
    else:
        charged = (meant == 408 or meant >= 500) and meant not in _NEVER_RUN
    if 300 <= meant < 400:
        return Reply("fatal", error=f"HTTP {status}: redirected; give the address it leads to", http_status=status)
    outcome, field, certain = _meaning(meant, text, wait, body)
    is_busy = meant in (408, 504, *_NEVER_RUN) and outcome != "fatal"
    return Reply(
        outcome,
        error=shown,
        http_status=status,
        wait=wait if outcome == "rate_limited" else None,
        field=field,
        is_charged=charged,
        is_certain=certain,
        is_timeout=is_busy,
    )


def _meaning(status: int, text: ErrorText, wait: float | None, body: Mapping[str, Any]) -> tuple[str, str | None, bool]:
    """Returns outcome, refused field, and whether the words say so; `status` is 0 where the error has none."""
    words = text.words
    is_client_error = 400 <= status < 500 or status in (0, 500, 501)
    if _BAD_OUTPUT.search(words):
        return "possibly_billed", None, True
    if _NO_CREDIT_CODE.search(words) or status == 402:
        return "fatal", None, True
    if is_client_error and _ACCOUNT.search(words) and not _RATE.search(words):
        return "fatal", None, True
    if is_client_error and (status == 413 or _is_too_long(words)):
        return "bad_request", None, True
    if is_client_error and _MODERATED.search(words):
        return "bad_request", None, True
    if is_client_error and status not in (401, 403, 429) and (field := refused_field(text, body)):
        return ("fatal", None, True) if field == "?" else ("refused_field", field, True)
    if is_client_error and _NO_MODEL.search(words) and not _LOADING.search(words):
        return "fatal", None, True
    says_to_wait = bool(text.waits or _RATE.search(words))
    if _NO_CREDIT.search(words) and not (says_to_wait and status in (429, *_NEVER_RUN)):
        return "fatal", None, True
    if _QUOTA.search(words) or (_LONG_QUOTA.search(words) and says_to_wait):
        passes = says_to_wait and (wait is not None or not _LONG_QUOTA.search(words))
        return ("rate_limited" if passes else "fatal"), None, True
    return _by_status(status, words, wait)


def _is_too_long(words: str) -> bool:
    """Whether an error says that the question is too long, also by a limit below what was requested at once."""
    asked = _REQUESTED.search(words)
    if asked and int(asked[2].replace(",", "")) > int(asked[1].replace(",", "")):
        return True
    return bool(_TOO_LONG.search(words))


def _by_status(status: int, words: str, wait: float | None) -> tuple[str, str | None, bool]:
    """Returns the same for an error whose words give no cause; a fault of the moment is still told by them."""
    is_rate = bool(_RATE.search(words))
    is_coming_back = status in _NEVER_RUN and (wait is not None or _LOADING.search(words))
    if status == 429 or is_coming_back or (is_rate and 400 <= status < 500):
        return "rate_limited", None, True
    if status in (409, 425, *_NEVER_RUN):
        return "unbilled", None, True
    if status == 401:
        return "fatal", None, True
    if status in (403, 404, 405, 407, 410, 426):
        return "fatal", None, False
    if status == 408 or status >= 500 or status == 0:
        return "possibly_billed", None, True
    return "bad_request", None, False


def refused_field(text: ErrorText, body: Mapping[str, Any]) -> str | None:
    """Finds the field of a request's body that an error refuses.

    Args:
        text: of the error.
        body: of the request.

    Returns:
        The field; "?" where the value of the bound of tokens is refused, which no other field mends; None where no
        field is refused.
    """
    found = None
    for name, pattern in _FIELD_WORDS.items():
        if name not in body or (name == "messages" and all(message["role"] != "system" for message in body[name])):
            continue
        if any(re.search(pattern, param, re.IGNORECASE) for param in text.params):
            found = name
            break
        is_named = found is None and re.search(pattern, text.message, re.IGNORECASE)
        is_bound = name.startswith("max") and _BOUND.search(text.message)
        if is_named and (is_bound or _REFUSES.search(text.words)):
            found = name
    if found is None:
        known = {"model", *_FIELD_WORDS}
        own = [name for name in body if name not in known and re.search(rf"\b{re.escape(name)}\b", text.message)]
        return "?" if own and _REFUSES.search(text.words) else None
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(found)
    if other and _BOUND.search(text.message) and other not in text.message.lower():
        return "?"
    return found
