"""An OpenAI-compatible server: the requests sent to it, and the outcome of each request.

The SDK's own retries are off and redirects are not followed. Every outcome is returned as a `Reply` and never raised,
because the SDK's exceptions hold the API key.
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

from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.pricing import read_usage
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.rate_limits import Limits, retry_after

STRUCTURED = ("json_schema", "json_object", "none")
"""How requests may ask for JSON."""
MAX_TOKENS_FIELDS = ("max_completion_tokens", "max_tokens")
"""Names of the field that bounds an answer's tokens: of today and of older servers."""

_KEY_SCHEMA = 1
_MAX_ANSWER_BYTES = 2_000_000
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated")
_SECRET = re.compile(r"(sk-|Bearer\s+)[A-Za-z0-9_\-.]{6,}")


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, a model, and the options of its requests; holds the name of the key's variable, never the key.

    Attributes:
        base_url: as the SDK takes it, usually ending in /v1.
        model: as the server calls it.
        api_key_env: environment variable with the API key; a server on this machine needs none.
        structured: how requests ask for JSON: "json_schema", "json_object", or "none" for servers without either.
        max_tokens_field: "max_completion_tokens", or "max_tokens" for older servers.
        max_output_tokens: bound of an answer's tokens, reasoning included.
        temperature: of sampling; None leaves it to the server, as reasoning models require.
        seed: of sampling, which servers follow at best approximately; None sends none.
        allow_http: True allows sending the key to other machines without encryption.
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
        try:
            url = urllib.parse.urlsplit(self.base_url)
            is_address = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError("base_url is not a web address; expected http://HOST/… or https://HOST/…")
        if url.username or url.password:
            raise ValueError(f"base_url holds a user or password; expected the key in {self.api_key_env}")
        if url.scheme == "http" and not self.is_local and not self.allow_http:
            raise ValueError(
                f"base_url is http:// to {url.hostname}, so the key is sent unencrypted; expected https://"
            )
        check_one_of("structured", self.structured, STRUCTURED)
        check_one_of("max_tokens_field", self.max_tokens_field, MAX_TOKENS_FIELDS)
        check_at_least(1, max_output_tokens=self.max_output_tokens)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def normalized_url(self) -> str:
        """The base URL in the form that enters the keys of requests."""
        url = urllib.parse.urlsplit(self.base_url)
        return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}"

    def api_key(self) -> str:
        """Reads the API key from the environment.

        Raises:
            ValueError: the variable is not set, and the server is not on this machine.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.is_local:
            raise ValueError(f"{self.api_key_env} is not set; expected the API key there")
        return key or "none"

    def body(self, question: Question) -> dict[str, Any]:
        """Returns the JSON body of the request, which is the same online and in a batch."""
        body: dict[str, Any] = {"model": self.model, "messages": [dict(message) for message in question.messages]}
        body[self.max_tokens_field] = self.max_output_tokens if question.kind == "rank" else 1024
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed
        if self.structured == "json_schema":
            schema = {"name": question.kind, "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    def prompt_hash(self, question: Question) -> bytes:
        """Returns a digest of all that the request depends on, without rendering it; equal hashes mean equal keys."""
        return hashlib.blake2b(question.prompt_hash, key=_endpoint_hash(self), digest_size=16).digest()

    def request(self, question: Question) -> dict[str, Any]:
        """Makes the request for a question.

        Returns:
            `key`, the SHA-256 of key schema, base URL and body; `prompt_hash`; `kind`, `session_id` and `candidates` of
            the question; `endpoint` and `model`; `size`, the bytes of the body, which bound its tokens from above;
            `max_output_tokens`, the bound of the answer's; `body`.
        """
        body = self.body(question)
        text = canonical_json(body)
        return {
            "key": hashlib.sha256(f"{_KEY_SCHEMA}\n{self.normalized_url}\n{text}".encode()).hexdigest(),
            "prompt_hash": self.prompt_hash(question),
            "kind": question.kind,
            "session_id": question.session_id,
            "endpoint": self.normalized_url,
            "model": self.model,
            "candidates": json.dumps(question.candidates),
            "size": len(text.encode()) + 64,
            "max_output_tokens": body[self.max_tokens_field],
            "body": body,
        }


@functools.lru_cache
def _endpoint_hash(endpoint: Endpoint) -> bytes:
    """Digest of all that a request depends on beside its question."""
    options = dataclasses.asdict(dataclasses.replace(endpoint, api_key_env="", allow_http=True))
    content = canonical_json([_KEY_SCHEMA, options | {"base_url": endpoint.normalized_url}])
    return hashlib.sha256(content.encode()).digest()


def canonical_json(value: Any) -> str:
    """Returns JSON that is equal for equal values: sorted names, 0.0 written as 0, text as it is."""
    return json.dumps(_without_floats(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _without_floats(value: Any) -> Any:
    """Replaces floats that are integers by these, in an object's members too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _without_floats(member) for name, member in value.items()}
    return value


@dataclasses.dataclass(frozen=True)
class Reply:
    """The outcome of one request.

    Attributes:
        outcome: "answer"; "rate_limited", refused because there were too many requests; "unbilled", failed before it
            could be billed; "possibly_billed", failed when it may have been billed; "bad_request", this question cannot
            be asked; "fatal", no question can be asked.
        answer: the answer, where there is one.
        error: one line without secrets.
        http_status: of the server's answer, where there is one.
        wait: seconds to wait that the server asked for.
    """

    outcome: str
    answer: Answer | None = None
    error: str = ""
    http_status: int | None = None
    wait: float | None = None


class Connection:
    """The SDK's client for one endpoint, to be used within `async with`.

    The constructor imports the SDK, which takes a second, and should therefore run in a thread beside an event loop.

    Attributes:
        sdk: the SDK's client.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits):
        import openai

        self._endpoint, self._limits, self._key = endpoint, limits, endpoint.api_key()
        # A proxy set in the environment would receive the key unencrypted where the server is on this machine.
        # Loading certificates takes time and is needed for https only.
        transport = openai.DefaultAsyncHttpxClient(
            follow_redirects=False, trust_env=not endpoint.is_local, verify=endpoint.base_url.startswith("https")
        )
        # Waiting for a connection from the pool is not an error; the time limit of the whole request bounds it.
        timeout = openai.Timeout(limits.read_s, connect=limits.connect_s, pool=None)
        self.sdk = openai.AsyncOpenAI(
            api_key=self._key, base_url=endpoint.base_url, max_retries=0, timeout=timeout, http_client=transport
        )
        # The SDK imports its parts when they are first accessed.
        self._create = self.sdk.chat.completions.with_streaming_response.create

    async def __aenter__(self) -> "Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.sdk.close()

    async def send(self, body: Mapping[str, Any]) -> Reply:
        """Sends one request once and waits for its answer within the time limits.

        Args:
            body: JSON body of the request.

        Returns:
            The outcome; nothing is raised but cancellation.
        """
        import openai

        try:
            async with asyncio.timeout(self._limits.total_s):
                # The SDK sends an extra body as it is, but would transform every message of a typed argument.
                async with self._create(model=self._endpoint.model, messages=[], extra_body=dict(body)) as response:
                    raw = bytearray()
                    async for chunk in response.iter_bytes():
                        raw += chunk
                        if len(raw) > _MAX_ANSWER_BYTES:
                            return Reply("possibly_billed", error=f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
                    return self._parse(bytes(raw), response.status_code)
        except openai.APIStatusError as error:
            return self._classify_error(error)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            return Reply("unbilled" if cause in _NOT_SENT else "possibly_billed", error=f"connection: {cause}")
        except TimeoutError:
            return Reply("possibly_billed", error=f"no answer within {self._limits.total_s:g} s")
        except Exception as error:
            # A body was cut short or wrongly encoded, for example: the answer may exist and be billed.
            return Reply("possibly_billed", error=f"broken answer: {type(error).__name__}")

    def _parse(self, raw: bytes, http_status: int) -> Reply:
        """Parses the body of an HTTP answer with a status of success."""
        answer = parse_completion(self.remove_key(raw))
        if isinstance(answer, str):
            return Reply("possibly_billed", error=answer, http_status=http_status)
        return Reply("answer", answer, http_status=http_status)

    def _classify_error(self, error: Any) -> Reply:
        """Classifies an HTTP error by what it means for the question, for the run, and for the bill."""
        status, code = error.status_code, str(error.code or "") or str(error.type or "")
        message = self.redact(f"HTTP {status} {code}: {error.message}")
        wait = retry_after(error.response.headers, now=time.time())
        if code in _NO_CREDIT or error.type in _NO_CREDIT or status in (401, 403, 404) or code == "model_not_found":
            return Reply("fatal", error=message, http_status=status)
        if 300 <= status < 400:
            return Reply("fatal", error=f"HTTP {status}: redirected; give the address it leads to", http_status=status)
        if status == 429 or (status in (503, 529) and wait is not None):
            return Reply("rate_limited", error=message, http_status=status, wait=wait)
        if status in (409, 503, 529):
            return Reply("unbilled", error=message, http_status=status)
        if status == 408 or status >= 500:
            return Reply("possibly_billed", error=message, http_status=status)
        return Reply("bad_request", error=message, http_status=status)

    def remove_key(self, raw: bytes) -> bytes:
        """Replaces the API key in what a server sent, which may repeat it."""
        return raw.replace(self._key.encode(), b"[key]") if len(self._key) > 7 else raw

    def redact(self, text: str) -> str:
        """Makes a text one short line without the API key or anything that looks like one."""
        text = text.replace(self._key, "[key]") if len(self._key) > 7 else text
        return " ".join(_SECRET.sub("[key]", text).split())[:500]


def parse_completion(raw: bytes) -> Answer | str:
    """Parses a chat completion.

    Args:
        raw: body of the HTTP answer, without the API key.

    Returns:
        The answer, or a text that says why there is none.
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
    """Returns a text that can be encoded in UTF-8, as SQLite requires; lone surrogates are replaced."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None
