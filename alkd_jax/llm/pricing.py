"""Money and tokens in exact integers: prices, caps, and what asking will cost before anything is sent.

Money is counted in pico-dollars, 10⁻¹² $, in which a token at 0.15 $ a million costs 150,000.
"""

import dataclasses
import functools
import hashlib
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

PICO = 10**12
_MOST_TOKENS = 10**9
TOKENS_PER_BYTE = 0.40
"""Expected tokens in a byte of a request before anything was measured: titles gave 0.32 to 0.395."""
OUTPUT_TOKENS = 90
"""Expected tokens of an answer before anything was measured: 25 labels took 79."""
_BYTES_PER_TOKEN = 8

_ENCODINGS = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
"""tiktoken's encodings: name in its cache folder, and SHA-256 of the file there."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as the server counted them; `cached` are among `prompt`, reasoning is in `completion`."""

    prompt: int
    cached: int
    completion: int


@dataclasses.dataclass(frozen=True)
class Price:
    """Dollars per million tokens.

    Attributes:
        input: of prompt tokens.
        output: of completion tokens, reasoning included.
        cached_input: of prompt tokens the server had cached; as `input` where None.
        batch_factor: what the Batch API costs of it.
        tier_factors: the same for service tiers the server may answer with.
        source: where the price is from and when.
        is_free: said aloud, so that no price is zero by mistake.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    batch_factor: Decimal = Decimal("0.5")
    tier_factors: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    source: str = "as given"
    is_free: bool = False

    def __post_init__(self) -> None:
        named = {"input": self.input, "output": self.output, "batch_factor": self.batch_factor, **self.tier_factors}
        for name, value in {**named, "cached_input": self.cached}.items():
            if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
                raise ValueError(f"price {name}: {value!r}, expected a Decimal of at least 0")
        for name, value in (("input", self.input), ("output", self.output), ("cached_input", self.cached)):
            if value * 10**6 % 1:
                raise ValueError(f"price {name}: {value}, expected at most six decimals of a dollar a million tokens")
        if not self.is_free and not (self.input and self.output):
            raise ValueError(f"price: input {self.input}, output {self.output}; say Price.free() for what is free")

    @classmethod
    def free(cls) -> "Price":
        """Of a server of one's own."""
        return cls(Decimal(0), Decimal(0), source="free", is_free=True)

    @property
    def cached(self) -> Decimal:
        """Price of cached prompt tokens."""
        return self.input if self.cached_input is None else self.cached_input

    def cost(self, usage: Usage, *, tier: str | None = None, batch: bool = False) -> int:
        """Pico-dollars of one answer, rounded up; a tier without a factor counts as the dearest known."""
        fresh = usage.prompt - usage.cached
        dollars = fresh * self.input + usage.cached * self.cached + usage.completion * self.output
        factor = self.batch_factor if batch else Decimal(1)
        if tier not in (None, "default", "auto", "standard") and not batch:
            factor = self.tier_factors.get(tier or "", max([Decimal(1), *self.tier_factors.values()]))
        return math.ceil(dollars * 10**6 * factor)

    def worst(self, prompt_bound: int, output_bound: int, *, batch: bool = False) -> int:
        """Pico-dollars that an answer can cost at most, if the server keeps to the bound of its length."""
        dollars = prompt_bound * max(self.input, self.cached) + output_bound * self.output
        return math.ceil(dollars * 10**6 * (self.batch_factor if batch else Decimal(1)))


def _listed(input_: str, output: str, cached: str | None = None) -> Price:
    return Price(Decimal(input_), Decimal(output), Decimal(cached) if cached else None, source="list price, 2025")


PRICES: Mapping[str, Price] = {
    "gpt-4-turbo-2024-04-09": _listed("10", "30"),
    "gpt-4o-2024-08-06": _listed("2.50", "10", "1.25"),
    "gpt-4o-mini-2024-07-18": _listed("0.15", "0.60", "0.075"),
    "gpt-4o-mini": _listed("0.15", "0.60", "0.075"),
    "gpt-4.1-2025-04-14": _listed("2", "8", "0.50"),
    "gpt-4.1-mini-2025-04-14": _listed("0.40", "1.60", "0.10"),
    "gpt-4.1-mini": _listed("0.40", "1.60", "0.10"),
    "gpt-4.1-nano-2025-04-14": _listed("0.10", "0.40", "0.025"),
}
"""List prices of some models; compare with your provider's before a large run. A model not here has no known price."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What asking will cost.

    Attributes:
        asked: questions.
        answered: of these, already in the store.
        low: pico-dollars at least, if every question is answered once.
        expected: most likely.
        worst: at most, every invalid answer asked for again.
        tokens: expected, prompt and completion.
        basis: where the expected number of tokens is from.
    """

    asked: int
    answered: int
    low: int
    expected: int
    worst: int
    tokens: int
    basis: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What stored answers measured: tokens in a byte of a request, tokens of an answer, and their number."""

    tokens_per_byte: float
    output_tokens: float
    answers: int


def estimate(
    bounds: list[tuple[int, int | None]],
    price: Price,
    *,
    max_output_tokens: int,
    answered: int = 0,
    measured: Calibration | None = None,
) -> Estimate:
    """Estimates the cost of questions not answered yet.

    Args:
        bounds: of each, an upper bound of its tokens, which is its size in bytes, and its tokens if they were counted.
        price: of the model.
        max_output_tokens: that the server is told.
        answered: questions that cost nothing any more.
        measured: on earlier answers of the same model; it goes before counted tokens.

    Returns:
        The estimate.
    """
    size = sum(bound for bound, _ in bounds)
    counted = sum(tokens for _, tokens in bounds if tokens is not None)
    output = min(float(OUTPUT_TOKENS), float(max_output_tokens))
    if measured and measured.answers:
        prompt, output = size * measured.tokens_per_byte, measured.output_tokens
        basis = f"measured on {measured.answers} answers"
    elif bounds and all(tokens is not None for _, tokens in bounds):
        prompt, basis = float(counted), "counted with tiktoken"
    else:
        prompt, basis = size * TOKENS_PER_BYTE, f"{TOKENS_PER_BYTE:.2f} tokens a byte"
    usage = Usage(round(prompt), 0, round(output * len(bounds)))
    least = Usage(size // _BYTES_PER_TOKEN, size // _BYTES_PER_TOKEN, len(bounds))
    worst = 2 * sum(price.worst(bound, max_output_tokens) for bound, _ in bounds)
    tokens = usage.prompt + usage.completion
    low, expected = price.cost(least), price.cost(usage)
    return Estimate(len(bounds) + answered, answered, min(low, expected), min(expected, worst), worst, tokens, basis)


def read_usage(value: Any) -> Usage | None:
    """Reads the `usage` of an answer; None where it is missing, negative or no count at all."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    prompt, completion = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    cached = _count(details.get("cached_tokens") or 0 if isinstance(details, dict) else 0)
    if prompt is None or completion is None or cached is None:
        return None
    return Usage(prompt, min(cached, prompt), completion)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


@functools.cache
def token_counter(model: str) -> Callable[[str], int] | None:
    """A count of a text's tokens by tiktoken, if its file lies on this machine; None otherwise.

    tiktoken would fetch a missing file and delete a damaged one, so it is asked only after the file was checked.
    """
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
        cached_as, digest = _ENCODINGS[name]
        path = _tiktoken_folder() / cached_as
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return None
        encoding = tiktoken.get_encoding(name)
    except (ImportError, KeyError, OSError, ValueError):
        return None
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def _tiktoken_folder() -> pathlib.Path:
    """Where tiktoken keeps its files."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return pathlib.Path(os.environ[variable])
    return pathlib.Path(tempfile.gettempdir()) / "data-gym-cache"


def dollars(pico: int) -> str:
    """For people: "$0.000615"."""
    return f"${Decimal(pico) / PICO:.6f}"
