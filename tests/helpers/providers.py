"""Providers with a bill of their own: what each charges for a request is written down when it does the work."""

import json
import threading
from decimal import Decimal

from alkd_jax.llm.pricing import Price
from tests.helpers.fault_server import completion, error, faultless, http, ranked

PRICES = (400_000, 1_600_000, 100_000)
"""Pico-dollars of a prompt token, a completion token and a cached prompt token."""
LIST_PRICE = Price(Decimal("0.40"), Decimal("1.60"), Decimal("0.10"), tier_factors={"priority": Decimal("1.75")})
"""The same as a list of prices has it."""

NO_TEMPERATURE = (
    lambda body: "temperature" in body,
    "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    400,
    {"param": "temperature", "code": "unsupported_value"},
)
"""A rule of :func:`refusing`."""


class Provider:
    """A provider that answers every question, to be given to a `FaultServer` as its behavior.

    Attributes:
        prompt: tokens of a prompt.
        completion: tokens of an answer's text.
        reasoning: tokens that are billed beside the completion.
        cached: prompt tokens billed at the price of cached ones.
        factor: on the prices.
        usage: function of this provider that returns what it tells of the tokens.
        more: further members of an answer.
        billed: pico-dollars charged so far.
    """

    def __init__(self, usage, *, prompt=3000, completion=90, reasoning=0, cached=0, factor=1, more=None):
        self.prompt, self.completion, self.reasoning, self.cached = prompt, completion, reasoning, cached
        self.factor, self.usage, self.more, self.billed = factor, usage, more or {}, 0

    def charge(self):
        plain, done, cached = PRICES
        dollars = (self.prompt - self.cached) * plain + (self.completion + self.reasoning) * done + self.cached * cached
        self.billed += int(dollars * self.factor)

    def __call__(self, call):
        self.charge()
        message = {"role": "assistant", "content": json.dumps(ranked(call.body))}
        whole = {"id": "1", "model": call.body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}
        return [http(whole | {"usage": self.usage(self)} | self.more)]


class OneSlot:
    """A server that answers one request at a time, and goes on with requests whose client has left."""

    def __init__(self, seconds):
        self.seconds, self.free_at, self.lock = seconds, 0.0, threading.Lock()

    def __call__(self, call):
        with self.lock:
            self.free_at = max(self.free_at, call.at) + self.seconds
            wait = self.free_at - call.at
        yield wait
        yield from faultless(call)


def closing_idle_connections(seconds):
    """A server that promises to keep each connection, and closes it up to twice so many seconds after its answer."""

    def behave(call):
        yield http(completion(call), headers={"connection": "keep-alive"})
        yield seconds * (call.number % 3)
        raise ConnectionError

    return behave


def refusing(behave, *rules):
    """A behavior that refuses requests by rules: a function of the body, and the message, status and members."""

    def refuse(call):
        for applies, message, status, more in rules:
            if applies(call.body):
                return [http({"error": {"message": message, **more}}, status)]
        return behave(call)

    return refuse


def shapes(text, code):
    """The same error as providers send it: name → bytes of the HTTP answer, given its status."""
    return {
        "object": lambda status: error(status, code, message=text),
        "text": lambda status: http({"error": text}, status),
        "list": lambda status: http([{"error": {"code": status, "message": text, "status": code.upper()}}], status),
        "bare list": lambda status: http([text], status),
        "bare text": lambda status: http(json.dumps(text).encode(), status),
        "plain": lambda status: http(text.encode(), status, {"content-type": "text/plain"}),
        "detail": lambda status: http({"detail": text}, status),
        "details": lambda status: http({"detail": [{"loc": ["body"], "msg": text, "type": code}]}, status),
        "html": lambda status: http(f"<html><body><h1>{text}</h1></body></html>".encode(), status),
        "nested": lambda status: http(
            {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps({"error": text})}}}, status
        ),
        "message": lambda status: http({"message": text, "code": code}, status),
        "in a 200": lambda status: http({"error": {"message": text, "code": status}}),
        "in a choice": lambda status: http(
            {"choices": [{"error": {"message": text, "code": status}, "message": {"content": ""}}]}
        ),
        "beside no choices": lambda status: http({"choices": None, "error": {"message": text, "code": str(status)}}),
    }
