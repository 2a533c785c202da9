"""An OpenAI-compatible server on a real socket of this machine: misbehaves on request, and keeps its own bill.

A behavior is a function of `Call` that returns acts: bytes to send, seconds to wait, or how to end the connection.
"""

import asyncio
import dataclasses
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterable

PROMPT, COMPLETION = 400_000, 1_600_000
"""Pico-dollars a token, the price of a model at 0.40 $ and 1.60 $ a million tokens."""


@dataclasses.dataclass
class Call:
    """One request as it arrived: its number from 0, method, path, headers in lower case, body, and when."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: dict
    at: float
    raw: bytes
    server: "FaultServer"

    @property
    def digest(self):
        return hashlib.sha256(self.raw).hexdigest()


class Reset(Exception):
    """Ends the connection with RST."""


class Close(Exception):
    """Ends the connection without another byte."""


def labels_of(body):
    return re.findall(r'^\{"id": "(C\d\d)"', body["messages"][-1]["content"], re.MULTILINE)


def titles_of(body):
    """Label → title."""
    lines = [line for line in body["messages"][-1]["content"].splitlines() if line.startswith('{"id": ')]
    return {shown["id"]: shown["title"] for shown in map(json.loads, lines)}


def ranked(body, k=25):
    """A faultless answer: the labels in an order drawn from the question."""
    labels = labels_of(body)
    if not labels:
        return {"hints": ["People keep to series.", "People keep to genres."]}
    drawn = hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()
    return {"ranking": sorted(labels, key=lambda name: hashlib.sha256((drawn + name).encode()).digest())[:k]}


def completion(call, content=None, *, finish="stop", usage=..., model=None, **more):
    """A chat completion; billed unless usage says otherwise."""
    content = json.dumps(ranked(call.body)) if content is None else content
    if usage is ...:
        usage = {"prompt_tokens": int(len(call.raw) * 0.3), "completion_tokens": 90, "total_tokens": 0}
    if usage and all(type(usage.get(name)) is int for name in ("prompt_tokens", "completion_tokens")):
        call.server.charge(call, usage)
    message = {"role": "assistant", "content": content, "refusal": None} | more.pop("message", {})
    choice = {"index": 0, "finish_reason": finish, "message": message}
    whole = {"id": f"chatcmpl-{call.number}", "object": "chat.completion", "created": 1, "choices": [choice]}
    whole |= {"model": model or call.body["model"], "system_fingerprint": "fp_1"} | more
    return whole | ({"usage": usage} if usage is not None else {})


def http(value, status=200, headers=None, *, length=None):
    """The bytes of an HTTP answer."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    defaults = {"content-type": "application/json", "content-length": str(len(body) if length is None else length)}
    lines = [f"HTTP/1.1 {status} X"] + [f"{name}: {text}" for name, text in (defaults | (headers or {})).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def error(status, code, headers=None, message="an error"):
    return http({"error": {"message": message, "type": code, "code": code}}, status, headers)


def faultless(call):
    return [http(completion(call))]


class FaultServer:
    """Serves in a thread of its own, within `with`.

    Attributes:
        calls: every chat completion asked for, in the order of arrival.
        bill: digest of the request → tokens charged, one entry a charge.
    """

    def __init__(self, behave: Callable[[Call], Iterable] = faultless, *, routes=None):
        self.behave, self.routes = behave, routes
        self.calls, self.bill, self.lock = [], [], threading.Lock()
        self.most_at_once, self._now = 0, 0

    def charge(self, call, usage):
        with self.lock:
            self.bill.append((call.digest, usage["prompt_tokens"], usage["completion_tokens"]))

    @property
    def cost(self):
        """The whole bill in pico-dollars."""
        return sum(prompt * PROMPT + done * COMPLETION for _, prompt, done in self.bill)

    def __enter__(self):
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._started.wait(600)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(600)

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, Close, asyncio.CancelledError):
            pass
        except Reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {n.strip().lower(): v.strip() for n, v in (line.split(":", 1) for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw and "json" in headers.get("content-type", "") else {}
        is_chat = path.split("?")[0].endswith("/chat/completions")
        with self.lock:
            number = len(self.calls)
            call = Call(number, method, path, headers, body, self._loop.time(), raw, self)
            if is_chat:
                self.calls.append(call)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            for act in self.behave(call) if is_chat else self.routes(call):
                if isinstance(act, bytes):
                    writer.write(act)
                    await writer.drain()
                elif isinstance(act, int | float):
                    await asyncio.sleep(act)
                else:
                    raise act
        finally:
            self._now -= 1
        return True
