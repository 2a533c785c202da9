"""An OpenAI-compatible server and model: the requests sent to it, what it refuses of them, and its answers."""

import dataclasses
import functools
import hashlib
import ipaddress
import json
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any

from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.llm.prompts import Question

STRUCTURED = ("json_schema", "json_object", "none")
"""How requests may ask for JSON."""
MAX_TOKENS_FIELDS = ("max_completion_tokens", "max_tokens")
"""Names of the field that bounds an answer's tokens: of today and of older servers."""

_KEY_SCHEMA = 1
_OUTPUT_TOKENS = {"rank": 256, "hints": 1024, "precede": 128}
_ADDED_OPTIONS = {"reasoning_effort": None, "extra_body": None, "system_role": "system"}
"""Options that were added later, and their values of before."""
_OWN_FIELDS = ("model", "messages", "stream", "n", "best_of", *MAX_TOKENS_FIELDS)
"""Fields that no extra body may hold: each changes what an answer is or what it can cost."""


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server, a model, and the options of its requests; holds the name of the key's variable, never the key.

    Attributes:
        base_url: as the SDK takes it, usually ending in /v1.
        model: as the server calls it.
        api_key_env: environment variable with the API key; a server on this machine needs none.
        structured: how requests ask for JSON: "json_schema", "json_object", or "none" for servers without either.
        max_tokens_field: "max_completion_tokens", or "max_tokens" for older servers.
        max_output_tokens: bound of an answer's tokens, reasoning included; None for 256, or 1,024 for hints.
        temperature: of sampling; None leaves it to the server, as reasoning models require.
        seed: of sampling, which servers follow at best approximately; None sends none.
        reasoning_effort: how much a reasoning model thinks, such as "none" or "low"; None leaves it to the server.
        extra_body: JSON object of further fields of every request.
        system_role: role of the instructions; None for models that have none, whose question begins with them.
        allow_http: True allows sending the key to other machines without encryption.
    """

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    structured: str = "json_schema"
    max_tokens_field: str = "max_completion_tokens"
    max_output_tokens: int | None = None
    temperature: int | float | None = 0.0
    seed: int | None = 0
    reasoning_effort: str | None = None
    extra_body: str | None = None
    system_role: str | None = "system"
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
        if names := [name for name, _ in urllib.parse.parse_qsl(url.query) if _holds_secret(name)]:
            raise ValueError(f"base_url has {names[0]} in its query; expected the key in {self.api_key_env}")
        if url.scheme == "http" and not self.is_local and not self.allow_http:
            raise ValueError(
                f"base_url is http:// to {url.hostname}, so the key is sent unencrypted; expected https://"
            )
        check_one_of("structured", self.structured, STRUCTURED)
        check_one_of("max_tokens_field", self.max_tokens_field, MAX_TOKENS_FIELDS)
        if self.max_output_tokens is not None:
            check_at_least(1, max_output_tokens=self.max_output_tokens)
        if names := [name for name in self.extra_fields if name in _OWN_FIELDS]:
            raise ValueError(f"extra_body has {names[0]}; expected other fields than {', '.join(_OWN_FIELDS)}")

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        try:
            address = ipaddress.ip_address(host)
            # A connection to the unspecified address, 0.0.0.0, leads to this machine.
            return address.is_loopback or address.is_unspecified
        except ValueError:
            return host == "localhost"

    @property
    def normalized_url(self) -> str:
        """The base URL in the form that enters the keys of requests."""
        url = urllib.parse.urlsplit(self.base_url)
        query = f"?{url.query}" if url.query else ""
        return f"{url.scheme}://{url.netloc.lower()}{url.path.rstrip('/')}{query}"

    @property
    def extra_fields(self) -> dict[str, Any]:
        """The fields in `extra_body`.

        Raises:
            ValueError: it is no JSON object.
        """
        try:
            fields = json.loads(self.extra_body or "{}")
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise ValueError(f"extra_body is {self.extra_body!r}; expected a JSON object")
        return fields

    def max_tokens(self, kind: str = "rank") -> int:
        """Returns the bound of an answer's tokens for a kind of question."""
        return _OUTPUT_TOKENS[kind] if self.max_output_tokens is None else self.max_output_tokens

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
        body: dict[str, Any] = {"model": self.model, "messages": self._messages(question)}
        body[self.max_tokens_field] = self.max_tokens(question.kind)
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed
        if self.reasoning_effort is not None:
            body["reasoning_effort"] = self.reasoning_effort
        if self.structured == "json_schema":
            schema = {"name": question.kind, "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body | self.extra_fields

    def _messages(self, question: Question) -> list[dict[str, str]]:
        """Returns the messages of a question, in the roles that the model has."""
        messages = [dict(message) for message in question.messages]
        instructions = [message["content"] for message in messages if message["role"] == "system"]
        if self.system_role is not None or not instructions:
            return messages
        first, *rest = (message for message in messages if message["role"] != "system")
        return [first | {"content": "\n\n".join([*instructions, first["content"]])}, *rest]

    def prompt_hash(self, question: Question) -> bytes:
        """Returns a digest of all that the request depends on, without rendering it; equal hashes mean equal keys."""
        return hashlib.blake2b(question.prompt_hash, key=_endpoint_hash(self), digest_size=16).digest()

    def unbounded_hash(self, question: Question) -> bytes:
        """Returns a longer digest of the same without the bound of the answer's tokens."""
        unbounded = dataclasses.replace(self, max_output_tokens=None)
        return b"u" + hashlib.blake2b(question.prompt_hash, key=_endpoint_hash(unbounded), digest_size=16).digest()

    def request(self, question: Question) -> dict[str, Any]:
        """Makes the request for a question.

        Returns:
            `key`, the SHA-256 of key schema, base URL and body; `prompt_hash` and `unbounded_hash`; `kind`,
            `session_id` and `candidates` of the question; `endpoint` and `model`; `size`, the bytes of the body, which
            bound its tokens from above; `max_output_tokens`, the bound of the answer's; `body`.
        """
        body = self.body(question)
        text = canonical_json(body)
        return {
            "key": hashlib.sha256(f"{_KEY_SCHEMA}\n{self.normalized_url}\n{text}".encode()).hexdigest(),
            "prompt_hash": self.prompt_hash(question),
            "unbounded_hash": self.unbounded_hash(question),
            "kind": question.kind,
            "session_id": question.session_id,
            "endpoint": self.normalized_url,
            "model": self.model,
            "candidates": json.dumps(question.candidates),
            "size": len(text.encode()) + 64,
            "max_output_tokens": body[self.max_tokens_field],
            "body": body,
        }

    def without(self, field: str) -> tuple[str, str | None] | None:
        """Returns what to change where a server refuses a field of the body.

        Args:
            field: of the body.

        Returns:
            Name and value of an attribute, which may be sent instead; None where nothing can.
        """
        if field == "messages":
            return ("system_role", None)
        if field in MAX_TOKENS_FIELDS:
            others = [name for name in MAX_TOKENS_FIELDS if name != field]
            return ("max_tokens_field", others[0])
        if field == "response_format" and self.structured != STRUCTURED[-1]:
            return ("structured", STRUCTURED[STRUCTURED.index(self.structured) + 1])
        return (field, None) if field in ("temperature", "seed", "reasoning_effort") else None

    def sends(self, field: str, body: Mapping[str, Any]) -> bool:
        """Returns whether requests still have a field as a former body has it."""
        if field == "messages":
            return self.system_role is not None
        if field in MAX_TOKENS_FIELDS:
            return field == self.max_tokens_field
        if field == "response_format":
            return bool(body[field]["type"] == self.structured)
        return getattr(self, field, None) is not None

    def adapted(self, changes: Mapping[str, str | None]) -> "Endpoint":
        """Returns the endpoint with what a server is known to refuse replaced.

        Args:
            changes: attribute → value, as `without` returns them; a format that asks for less than `structured` is
                taken, no other.
        """
        changes = dict(changes)
        if STRUCTURED.index(str(changes.get("structured") or STRUCTURED[0])) < STRUCTURED.index(self.structured):
            changes.pop("structured", None)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@functools.lru_cache
def _endpoint_hash(endpoint: Endpoint) -> bytes:
    """Digest of all that a request depends on beside its question."""
    options = dataclasses.asdict(dataclasses.replace(endpoint, api_key_env="", allow_http=True))
    options |= {"base_url": endpoint.normalized_url, "max_output_tokens": endpoint.max_tokens()}
    # Options that were added later count where they are used, so that hashes of earlier versions stay as they are.
    options = {name: value for name, value in options.items() if (name, value) not in _ADDED_OPTIONS.items()}
    content = canonical_json([_KEY_SCHEMA, options])
    return hashlib.sha256(content.encode()).digest()


def _holds_secret(name: str) -> bool:
    """Whether the name of a part of an address's query is that of a secret."""
    return any(word in name.lower() for word in ("key", "token", "secret", "password", "sig"))


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
