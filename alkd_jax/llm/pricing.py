"""Money and tokens in exact integers: prices, and an estimate of the cost before anything is sent.

Money is counted in pico-dollars (10⁻¹² $). At 0.15 $ per million tokens, one token costs 150,000 pico-dollars.
"""

import dataclasses
import functools
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from alkd_jax.io import sha256_of

PICO = 10**12
"""Pico-dollars in a dollar."""
_MAX_TOKENS = 10**9
_MAX_PRICE = 10**6
TOKENS_PER_BYTE = 0.40
"""Expected tokens per byte of a request while no answer has been measured; titles gave 0.32 to 0.395."""
OUTPUT_TOKENS = 90
"""Expected tokens of an answer while none has been measured; 25 labels took 79."""
_MAX_BYTES_PER_TOKEN = 8

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
"""tiktoken's encodings: name → (name of the file in its cache folder, SHA-256 of the file)."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as counted by the server.

    Attributes:
        prompt: prompt tokens.
        cached: of these, tokens that the server had cached.
        completion: completion tokens, reasoning included.
    """

    prompt: int
    cached: int
    completion: int


@dataclasses.dataclass(frozen=True)
class Price:
    """Dollars per million tokens.

    Attributes:
        input: price of prompt tokens.
        output: price of completion tokens, reasoning included.
        cached_input: price of prompt tokens that the server had cached; None means the same as `input`.
        batch_factor: factor on all prices in the Batch API.
        tier_factors: service tier that the server may answer with → factor on all prices.
        source: where the price is from.
        is_free: must be True where a price is zero, so that none is zero by mistake.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    batch_factor: Decimal = Decimal("0.5")
    tier_factors: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    source: str = "as given"
    is_free: bool = False

    def __post_init__(self) -> None:
        prices = {"input": self.input, "output": self.output, "cached_input": self.cached}
        for name, value in {**prices, "batch_factor": self.batch_factor, **self.tier_factors}.items():
            if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
                raise ValueError(f"price {name} is {value!r}; expected a Decimal of at least 0")
            if value > _MAX_PRICE:
                raise ValueError(
                    f"price {name} is {value:g}; expected at most {_MAX_PRICE:,} dollars per million tokens"
                )
        for name, value in prices.items():
            if value * 10**6 % 1:
                raise ValueError(f"price {name} is {value}; expected at most six decimals of a dollar")
        if not self.is_free and not (self.input and self.output):
            raise ValueError(
                f"price input is {self.input}, output {self.output}; expected more than 0, or Price.free()"
            )

    @classmethod
    def free(cls) -> "Price":
        """Returns the price of a server that costs nothing."""
        return cls(Decimal(0), Decimal(0), source="free", is_free=True)

    @property
    def cached(self) -> Decimal:
        """Price of cached prompt tokens."""
        return self.input if self.cached_input is None else self.cached_input

    def cost(self, usage: Usage, *, tier: str | None = None, batch: bool = False) -> int:
        """Computes the cost of one answer.

        Args:
            usage: tokens of the answer.
            tier: service tier that answered; a tier without a factor is priced by the largest factor known.
            batch: whether the Batch API answered.

        Returns:
            Pico-dollars, rounded up.
        """
        uncached = usage.prompt - usage.cached
        dollars = uncached * self.input + usage.cached * self.cached + usage.completion * self.output
        factor = self.batch_factor if batch else Decimal(1)
        if tier not in (None, "default", "auto", "standard") and not batch:
            factor = self.tier_factors.get(tier or "", max([Decimal(1), *self.tier_factors.values()]))
        return math.ceil(dollars * 10**6 * factor)

    def max_cost(self, size: int, max_output_tokens: int, *, batch: bool = False) -> int:
        """Bounds the cost of one answer from above.

        Args:
            size: bytes of the request, which bound its tokens from above.
            max_output_tokens: tokens of the answer at most; the server is trusted to enforce it.
            batch: whether the Batch API answers.

        Returns:
            Pico-dollars, rounded up.
        """
        dollars = size * max(self.input, self.cached) + max_output_tokens * self.output
        return math.ceil(dollars * 10**6 * (self.batch_factor if batch else Decimal(1)))


def _list_price(input_: str, output: str, cached: str | None = None) -> Price:
    return Price(Decimal(input_), Decimal(output), Decimal(cached) if cached else None, source="list price, 2025")


PRICES: Mapping[str, Price] = {
    "gpt-4-turbo-2024-04-09": _list_price("10", "30"),
    "gpt-4o-2024-08-06": _list_price("2.50", "10", "1.25"),
    "gpt-4o-mini-2024-07-18": _list_price("0.15", "0.60", "0.075"),
    "gpt-4o-mini": _list_price("0.15", "0.60", "0.075"),
    "gpt-4.1-2025-04-14": _list_price("2", "8", "0.50"),
    "gpt-4.1-mini-2025-04-14": _list_price("0.40", "1.60", "0.10"),
    "gpt-4.1-mini": _list_price("0.40", "1.60", "0.10"),
    "gpt-4.1-nano-2025-04-14": _list_price("0.10", "0.40", "0.025"),
}
"""List prices of some models; compare them with your provider's before a large run. No other price is known."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the answers to some questions will cost.

    Attributes:
        questions: number of questions.
        answered: of these, questions whose answer is already in the store.
        low: pico-dollars at least, if every question is answered once.
        expected: pico-dollars most likely.
        worst: pico-dollars at most, if every question is asked twice because its first answer was invalid.
        tokens: expected prompt and completion tokens.
        basis: where the expected number of tokens is from.
    """

    questions: int
    answered: int
    low: int
    expected: int
    worst: int
    tokens: int
    basis: str


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What stored answers measured.

    Attributes:
        tokens_per_byte: prompt tokens per byte of a request.
        output_tokens: mean completion tokens of an answer.
        answers: number of answers measured.
    """

    tokens_per_byte: float
    output_tokens: float
    answers: int


def estimate(
    sizes: list[tuple[int, int | None]],
    price: Price,
    *,
    max_output_tokens: int,
    answered: int = 0,
    calibration: Calibration | None = None,
) -> Estimate:
    """Estimates the cost of questions that are not answered yet.

    Args:
        sizes: of each question, the bytes of its request, which bound its tokens from above, and its tokens where
            they were counted.
        price: of the model.
        max_output_tokens: bound of an answer that the server is told.
        answered: number of further questions, which are answered already and cost nothing.
        calibration: what earlier answers of the same model measured; it is preferred to counted tokens.

    Returns:
        The estimate.
    """
    size = sum(num_bytes for num_bytes, _ in sizes)
    counted = sum(tokens for _, tokens in sizes if tokens is not None)
    output = min(float(OUTPUT_TOKENS), float(max_output_tokens))
    if calibration and calibration.answers:
        prompt, output = size * calibration.tokens_per_byte, calibration.output_tokens
        basis = f"measured on {calibration.answers} answers"
    elif sizes and all(tokens is not None for _, tokens in sizes):
        prompt, basis = float(counted), "counted with tiktoken"
    else:
        prompt, basis = size * TOKENS_PER_BYTE, f"{TOKENS_PER_BYTE:.2f} tokens per byte"
    usage = Usage(round(prompt), 0, round(output * len(sizes)))
    least = Usage(size // _MAX_BYTES_PER_TOKEN, size // _MAX_BYTES_PER_TOKEN, len(sizes))
    worst = 2 * sum(price.max_cost(num_bytes, max_output_tokens) for num_bytes, _ in sizes)
    tokens = usage.prompt + usage.completion
    low, expected = price.cost(least), price.cost(usage)
    return Estimate(len(sizes) + answered, answered, min(low, expected), min(expected, worst), worst, tokens, basis)


def read_usage(value: Any) -> Usage | None:
    """Reads the JSON field `usage` of an answer; returns None where a count is missing, negative or no integer."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    prompt, completion = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    cached = _count(details.get("cached_tokens") or 0 if isinstance(details, dict) else 0)
    if prompt is None or completion is None or cached is None:
        return None
    return Usage(prompt, min(cached, prompt), completion)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None


@functools.cache
def token_counter(model: str) -> Callable[[str], int] | None:
    """Returns a function that counts a text's tokens with tiktoken, or None where the encoding is not on this machine.

    The file is checked first, because tiktoken would download a missing file and delete a damaged one.
    """
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
        file_name, digest = _ENCODINGS[name]
        if sha256_of(_tiktoken_folder() / file_name) != digest:
            return None
        encoding = tiktoken.get_encoding(name)
    except (ImportError, KeyError, OSError, ValueError):
        return None
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def _tiktoken_folder() -> pathlib.Path:
    """Returns the folder in which tiktoken caches its files."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return pathlib.Path(os.environ[variable])
    return pathlib.Path(tempfile.gettempdir()) / "data-gym-cache"


def dollars(pico: int) -> str:
    """Formats pico-dollars as dollars, such as "$0.000615"."""
    return f"${Decimal(pico) / PICO:.6f}"
