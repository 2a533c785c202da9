"""A connection to a server: the outcome of each request, classified by what it means and by whether it may be billed.

The SDK's own retries are off and redirects are not followed. Every outcome is returned as a `Reply` and never raised,
because the SDK's exceptions hold the API key.
"""

import asyncio
import functools
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from alkd_jax.llm import refusals
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.completions import parse_completion
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.refusals import Reply

_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
_SECRET = re.compile(r"(sk-|Bearer\s+)[A-Za-z0-9_\-.]{6,}")


class Connection:
    """The SDK's client for one endpoint, to be used within `async with`.

    The constructor imports the SDK, which takes a second, and should therefore run in a thread beside an event loop.

    Attributes:
        sdk: the SDK's client.
        most_bytes: of an answer; one with more is not read to its end.
    """

    most_bytes = 2_000_000

    def __init__(self, endpoint: Endpoint, limits: Limits):
        import openai

        self._endpoint, self._limits, self._key = endpoint, limits, endpoint.api_key()
        # Where a server closes an idle connection while a request is on its way there, nobody can tell whether the
        # request was read. Every request has a connection of its own, so that this cannot happen.
        defaults = openai.DEFAULT_CONNECTION_LIMITS
        one_use = type(defaults)(max_connections=defaults.max_connections, max_keepalive_connections=0)
        # A proxy set in the environment would receive the key unencrypted where the server is on this machine.
        # Loading certificates takes time and is needed for https only.
        transport = openai.DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=not endpoint.is_local,
            verify=endpoint.base_url.startswith("https"),
            limits=one_use,
        )
        # The time limit of the whole request bounds the waits for a connection of the pool and for the answer, whose
        # first byte comes when the model has finished.
        timeout = openai.Timeout(None, connect=limits.connect_s)
        url = urllib.parse.urlsplit(endpoint.base_url)
        self.sdk = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=url._replace(query="").geturl(),
            default_query=dict(urllib.parse.parse_qsl(url.query)),
            max_retries=0,
            timeout=timeout,
            http_client=transport,
        )
        # The SDK imports its parts when they are first accessed.
        self._create = self._method()

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
                async with self._create(model=self._endpoint.model, extra_body=dict(body)) as response:
                    raw = bytearray()
                    async for chunk in response.iter_bytes():
                        raw += chunk
                        if len(raw) > self.most_bytes:
                            return Reply("possibly_billed", error=f"an answer of more than {self.most_bytes} bytes")
                    return self._parse(bytes(raw), response.status_code, response.headers, body)
        except openai.APIStatusError as error:
            return self._refusal(error.status_code, error.response.content, error.response.headers, body)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            return Reply("unbilled" if cause in _NOT_SENT else "possibly_billed", error=f"connection: {cause}")
        except TimeoutError:
            return Reply("possibly_billed", error=f"no answer within {self._limits.total_s:g} s", is_timeout=True)
        except Exception as error:
            # A body was cut short or wrongly encoded, for example: the answer may exist and be billed.
            return Reply("possibly_billed", error=f"broken answer: {type(error).__name__}")

    def _method(self) -> Callable[..., Any]:
        """Returns the SDK's function that sends a body, which is given as `extra_body`."""
        return functools.partial(self.sdk.chat.completions.with_streaming_response.create, messages=[])

    def _read(self, raw: bytes, headers: Mapping[str, str], body: Mapping[str, Any]) -> Answer | str:
        """Reads the body of an HTTP answer; returns a text that says why there is no answer in it."""
        return parse_completion(raw, headers)

    def _parse(self, raw: bytes, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """Parses the body of an HTTP answer with a status of success, which may hold an error all the same."""
        answer = self._read(self.remove_key(raw), headers, body)
        if (isinstance(answer, str) or not answer.content) and refusals.holds_error(raw):
            return self._refusal(status, raw, headers, body)
        if isinstance(answer, str):
            return Reply("possibly_billed", error=answer, http_status=status)
        return Reply("answer", answer, http_status=status)

    def _refusal(self, status: int, raw: bytes, headers: Mapping[str, str], body: Mapping[str, Any]) -> Reply:
        """Classifies an error, without the key in its message."""
        return refusals.classify(status, self.redact_bytes(raw), headers, body=body, now=time.time())

    def redact_bytes(self, raw: bytes) -> bytes:
        """Does the same as `redact` in the body of an answer, without shortening it."""
        return _SECRET.sub("[key]", self.remove_key(raw).decode("utf-8", "replace")).encode()

    def remove_key(self, raw: bytes) -> bytes:
        """Replaces the API key in what a server sent, which may repeat it."""
        return raw.replace(self._key.encode(), b"[key]") if len(self._key) > 7 else raw

    def redact(self, text: str) -> str:
        """Makes a text one short line without the API key or anything that looks like one."""
        text = text.replace(self._key, "[key]") if len(self._key) > 7 else text
        return " ".join(_SECRET.sub("[key]", text).split())[:500]
