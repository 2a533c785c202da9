"""An OpenAI-compatible server: what is sent to it, and what its answer, or the lack of one, means.

The SDK's own retries are off and redirects are not followed; whatever happens on the wire comes back as a `Reply`,
never as an exception, since the SDK's exceptions carry the API key.
"""

import asyncio
import dataclasses
import functools
import hashlib
import ipaddress
import json
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from alkd_jax.llm.pricing import read_usage
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.rate_limits import Limits, retry_after
from alkd_jax.llm.store import Answer

_KEY_SCHEMA = 1
_LARGEST_ANSWER = 2_000_000
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated")
_SECRET = re.compile(r"(sk-|Bearer\s+)[A-Za-z0-9_\-.]{6,}")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, a model there, and how it is asked. Holds the name of the key's variable, never the key.

    Attributes:
        base_url: as the SDK takes it, for example ending in /v1.
        model: as the server calls it.
        api_key_env: variable of the environment with the API key; a server on this machine works without.
        structured: how the answer's form is demanded: "json_schema", "json_object", or "none" for a server without.
        max_tokens_field: "max_completion_tokens", or "max_tokens" for older servers.
        max_output_tokens: bound of an answer; reasoning counts too where the model reasons.
        temperature: None leaves it to the server, as reasoning models demand.
        seed: best effort at most; None where the server knows none.
        allow_http: True sends the key to other machines without encryption.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    structured: str = "json_schema"
    max_tokens_field: str = "max_completion_tokens"
    max_output_tokens: int = 256
    temperature: int | float | None = 0.0
    seed: int | None = 0
    allow_http: bool = False

    def __post_init__(self) -> None:
        url = urllib.parse.urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("base_url: expected http://HOST/… or https://HOST/…")
        if url.username or url.password:
            raise ValueError(f"base_url: holds a user or password; put the key into {self.api_key_env}")
        if url.scheme == "http" and not self.is_local and not self.allow_http:
            raise ValueError(f"base_url: http:// to {url.hostname} would send the key unencrypted; use https://")
        if self.structured not in ("json_schema", "json_object", "none"):
            raise ValueError(f"structured: {self.structured!r}, expected json_schema, json_object or none")
        if self.max_tokens_field not in ("max_completion_tokens", "max_tokens"):
            expected = "max_completion_tokens or max_tokens"
            raise ValueError(f"max_tokens_field: {self.max_tokens_field!r}, expected {expected}")
        if self.max_output_tokens < 1:
            raise ValueError(f"max_output_tokens: {self.max_output_tokens}, expected at least 1")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def normal_url(self) -> str:
        """The base URL as it enters keys."""
        url = urllib.parse.urlsplit(self.base_url)
        return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"

    def api_key(self) -> str:
        """Reads the key.

        Raises:
            ValueError: it is not set, and the server is not on this machine.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.is_local:
            raise ValueError(f"{self.api_key_env} is not set; the key is read from there only")
        return key or "none"

    def body(self, question: Question) -> dict[str, Any]:
        """What is sent; online and in a batch alike."""
        body: dict[str, Any] = {"model": self.model, "messages": [dict(message) for message in question.messages]}
        body[self.max_tokens_field] = self.max_output_tokens if question.kind == "rank" else 1024
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed
        if self.structured == "json_schema":
            named = {"name": question.kind, "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif self.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def mark(self, question: Question) -> bytes:
        """Digest of all that the request depends on, found without wording it: equal marks, equal keys."""
        return hashlib.blake2b(question.mark, key=_settings(self), digest_size=16).digest()

    def request(self, question: Question) -> dict[str, Any]:
        """The question as the store keeps it.

        Returns:
            `body`; `mark`; `key`, the SHA-256 of schema, base URL and body; `size`, bytes of the body and so more than
            its tokens; `output`, the bound of the answer; and what the question is about.
        """
        body = self.body(question)
        told = canonical(body)
        return {
            "key": hashlib.sha256(f"{_KEY_SCHEMA}\n{self.normal_url}\n{told}".encode()).hexdigest(),
            "mark": self.mark(question),
            "kind": question.kind,
            "session_id": question.session_id,
            "endpoint": self.normal_url,
            "model": self.model,
            "candidates": json.dumps(question.candidates),
            "size": len(told.encode()) + 64,
            "output": body[self.max_tokens_field],
            "body": body,
        }


@functools.lru_cache
def _settings(endpoint: Endpoint) -> bytes:
    """Digest of what enters the key of a request beside its question."""
    plain = dataclasses.asdict(dataclasses.replace(endpoint, api_key_env="", allow_http=True))
    told = canonical([_KEY_SCHEMA, plain | {"base_url": endpoint.normal_url}])
    return hashlib.sha256(told.encode()).digest()


def canonical(value: Any) -> str:
    """JSON that is equal for equal values: names sorted, 0.0 as 0, text untouched."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    return value


@dataclasses.dataclass(frozen=True)
class Reply:
    """What became of one request.

    Attributes:
        outcome: "answer"; "limited", refused for too many requests; "free", failed before it could cost; "maybe",
            failed when it may have been billed; "row", this question cannot be asked; "run", none can.
        answer: if there is one.
        error: one line without secrets.
        http_status: if one came.
        wait: seconds the server asked for.
    """

    outcome: str
    answer: Answer | None = None
    error: str = ""
    http_status: int | None = None
    wait: float | None = None


class Connection:
    """The SDK's client for one endpoint, within `async with`.

    Making one imports the SDK, which takes a second: where a loop is running, in a thread beside it.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits):
        import openai

        self._endpoint, self._limits, self._key = endpoint, limits, endpoint.api_key()
        # On this machine a proxy of the environment would get the key unencrypted. Certificates are loaded for https.
        transport = openai.DefaultAsyncHttpxClient(
            follow_redirects=False, trust_env=not endpoint.is_local, verify=endpoint.base_url.startswith("https")
        )
        # Waiting for a connection of the pool is no failure: the deadline of the whole request bounds it.
        timeout = openai.Timeout(limits.read_s, connect=limits.connect_s, pool=None)
        self.sdk = openai.AsyncOpenAI(
            api_key=self._key, base_url=endpoint.base_url, max_retries=0, timeout=timeout, http_client=transport
        )
        # The SDK imports its parts where they are first named.
        self._create = self.sdk.chat.completions.with_streaming_response.create

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sdk.close()

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Sends one request once and waits no longer than the limits say."""
        import openai

        try:
            async with asyncio.timeout(self._limits.total_s):
                # As an extra body it is sent as it is; the SDK would walk through every message first.
                async with self._create(model=self._endpoint.model, messages=[], extra_body=dict(body)) as response:
                    read = bytearray()
                    async for chunk in response.iter_bytes():
                        read += chunk
                        if len(read) > _LARGEST_ANSWER:
                            return Reply("maybe", error=f"an answer of more than {_LARGEST_ANSWER} bytes")
                    return self._read(bytes(read), response.status_code)
        except openai.APIStatusError as error:
            return self._refusal(error)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            return Reply("free" if cause in _NOT_SENT else "maybe", error=f"connection: {cause}")
        except TimeoutError:
            return Reply("maybe", error=f"no answer within {self._limits.total_s:g} s")
        except Exception as error:
            # Bodies cut short, broken encodings and the like: the answer may exist, and be billed.
            return Reply("maybe", error=f"broken answer: {type(error).__name__}")

    def _read(self, raw: bytes, http_status: int) -> Reply:
        answer = read_completion(self.without_key(raw))
        if isinstance(answer, str):
            return Reply("maybe", error=answer, http_status=http_status)
        return Reply("answer", answer, http_status=http_status)

    def _refusal(self, error: Any) -> Reply:
        """Sorts an HTTP error by what it means for this question, for the run, and for the bill."""
        status, code = error.status_code, str(error.code or "") or str(error.type or "")
        told = self.scrub(f"HTTP {status} {code}: {error.message}")
        wait = retry_after(error.response.headers, now=time.time())
        if code in _NO_MONEY or error.type in _NO_MONEY or status in (401, 403, 404) or code == "model_not_found":
            return Reply("run", error=told, http_status=status)
        if 300 <= status < 400:
            return Reply("run", error=f"HTTP {status}: redirected; give the address it leads to", http_status=status)
        if status == 429 or (status in (503, 529) and wait is not None):
            return Reply("limited", error=told, http_status=status, wait=wait)
        if status in (409, 503, 529):
            return Reply("free", error=told, http_status=status)
        if status == 408 or status >= 500:
            return Reply("maybe", error=told, http_status=status)
        return Reply("row", error=told, http_status=status)

    def without_key(self, raw: bytes) -> bytes:
        """What a server sent, without our key should it have sent that back."""
        return raw.replace(self._key.encode(), b"[key]") if len(self._key) > 7 else raw

    def scrub(self, text: str) -> str:
        """One short line without anything like a key."""
        known = text.replace(self._key, "[key]") if len(self._key) > 7 else text
        return " ".join(_SECRET.sub("[key]", known).split())[:500]


def read_completion(raw: bytes) -> Answer | str:
    """Reads a chat completion.

    Args:
        raw: the body of the answer.

    Returns:
        The answer, or in words what it is instead.
    """
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return f"an answer of {len(raw)} bytes that is no JSON"
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not isinstance(choice, dict):
        return "an answer without choices"
    return Answer(
        content=_text(message.get("content")),
        finish_reason=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        usage=read_usage(value.get("usage")),
        model=_text(value.get("model")),
        fingerprint=_text(value.get("system_fingerprint")),
        tier=_text(value.get("service_tier")),
        provider_id=_text(value.get("id")),
        raw=raw,
    )


def _text(value: Any) -> str | None:
    # SQLite keeps UTF-8 only, and a lone surrogate has none.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
