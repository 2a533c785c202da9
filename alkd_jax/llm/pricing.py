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

from alkd_jax.io import sha256_of
from alkd_jax.llm.token_usage import Usage

PICO = 10**12
"""Pico-dollars in a dollar."""
_MAX_PRICE = 10**6
_GIVEN, _FREE = "as given", "free"
STANDARD_TIERS = (None, "default", "auto", "standard", "on_demand")
"""Service tiers at the list price."""
_CHEAP_TIERS = ("flex", "batch")
_DEAR_TIERS = {"priority": Decimal("2.5"), "other": Decimal(6)}
"""Factor of a service tier where a model's own is not known: the largest on any list."""
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
class LongPrompt:
    """Factors on the prices of a request whose prompt is long.

    Attributes:
        above: prompt tokens from which on, exclusive, the factors hold for all tokens of the request.
        input: factor on the price of prompt tokens, cached ones and those written to a cache included.
        output: factor on the price of completion tokens.
    """

    above: int
    input: Decimal
    output: Decimal

    def __post_init__(self) -> None:
        if self.above < 0:
            raise ValueError(f"price long_prompt above is {self.above}; expected at least 0")
        for name, value in (("input", self.input), ("output", self.output)):
            if not value.is_finite() or not 1 <= value <= 100:
                raise ValueError(f"price long_prompt {name} is {value}; expected a factor from 1 to 100")


@dataclasses.dataclass(frozen=True)
class Price:
    """Dollars per million tokens.

    Attributes:
        input: price of prompt tokens.
        output: price of completion tokens, reasoning included.
        cached_input: price of prompt tokens that the server had cached; None means the same as `input`.
        cache_write: price of prompt tokens that the server puts into its cache; None means the same as `input`.
        batch_factor: factor on all prices in the Batch API.
        tier_factors: service tier that the server may answer with → factor on all prices.
        long_prompt: what long prompts cost more; None where all prompts cost the same.
        source: where the price is from.
        is_free: must be True where a price is zero, so that none is zero by mistake.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    batch_factor: Decimal = Decimal("0.5")
    tier_factors: Mapping[str, Decimal] = dataclasses.field(default_factory=dict)
    source: str = _GIVEN
    is_free: bool = False
    long_prompt: LongPrompt | None = None

    def __post_init__(self) -> None:
        prices = {"input": self.input, "output": self.output, "cached_input": self.cached, "cache_write": self.written}
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
        return cls(Decimal(0), Decimal(0), source=_FREE, is_free=True)

    @property
    def is_listed(self) -> bool:
        """Whether the price is from a list, which knows other models too."""
        return self.source not in (_GIVEN, _FREE)

    @property
    def cached(self) -> Decimal:
        """Price of cached prompt tokens."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def written(self) -> Decimal:
        """Price of prompt tokens that the server puts into its cache."""
        return self.input if self.cache_write is None else self.cache_write

    def length_factors(self, prompt_tokens: int) -> tuple[Decimal, Decimal]:
        """Returns the factors on the prices of the prompt and of the answer for a prompt of that length."""
        if self.long_prompt is None or prompt_tokens <= self.long_prompt.above:
            return Decimal(1), Decimal(1)
        return self.long_prompt.input, self.long_prompt.output

    def factor(self, tier: str | None, *, batch: bool = False) -> Decimal:
        """Returns the factor on all prices in a service tier; one that is not known counts as the dearest there is."""
        if batch:
            return self.batch_factor
        if tier in STANDARD_TIERS:
            return Decimal(1)
        if tier in _CHEAP_TIERS:
            return self.tier_factors.get(str(tier), Decimal(1))
        worst = _DEAR_TIERS.get(str(tier), _DEAR_TIERS["other"])
        return self.tier_factors.get(str(tier), max([f for f in self.tier_factors.values() if f > 1], default=worst))

    def cost(self, usage: Usage, *, tier: str | None = None, batch: bool = False, longest: int | None = None) -> int:
        """Computes the cost of one answer.

        Args:
            usage: tokens of the answer.
            tier: service tier that answered.
            batch: whether the Batch API answered.
            longest: tokens of the longest prompt, where `usage` is that of several answers together.

        Returns:
            Pico-dollars, rounded up; at least what the server says it has charged.
        """
        input_factor, output_factor = self.length_factors(usage.prompt if longest is None else longest)
        plain = usage.prompt - usage.cached - usage.cache_write
        dollars = plain * self.input + usage.cached * self.cached + usage.cache_write * self.written
        dollars = dollars * input_factor + usage.completion * self.output * output_factor
        return max(math.ceil(dollars * 10**6 * self.factor(tier, batch=batch)), usage.charged)

    def max_cost(self, size: int, max_output_tokens: int, *, tier: str | None = None, batch: bool = False) -> int:
        """Bounds the cost of one answer from above.

        Args:
            size: bytes of the request, which bound its tokens from above.
            max_output_tokens: tokens of the answer at most; the server is trusted to enforce it.
            tier: service tier that answers.
            batch: whether the Batch API answers.

        Returns:
            Pico-dollars, rounded up.
        """
        input_factor, output_factor = self.length_factors(size)
        dollars = size * max(self.input, self.cached, self.written) * input_factor
        dollars += max_output_tokens * self.output * output_factor
        return math.ceil(dollars * 10**6 * self.factor(tier, batch=batch))


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
    tier: str | None = None,
) -> Estimate:
    """Estimates the cost of questions that are not answered yet.

    Args:
        sizes: of each question, the bytes of its request, which bound its tokens from above, and its tokens where
            they were counted.
        price: of the model.
        max_output_tokens: bound of an answer that the server is told.
        answered: number of further questions, which are answered already and cost nothing.
        calibration: what earlier answers of the same model measured; it is preferred to counted tokens.
        tier: service tier that answers.

    Returns:
        The estimate.
    """
    size = sum(num_bytes for num_bytes, _ in sizes)
    counted = sum(tokens for _, tokens in sizes if tokens is not None)
    # A bound of thousands of tokens is for a model that reasons, and takes a part of it.
    output = min(max(float(OUTPUT_TOKENS), max_output_tokens / 8), float(max_output_tokens))
    if calibration and calibration.answers:
        prompt, output = size * calibration.tokens_per_byte, calibration.output_tokens
        basis = f"measured on {calibration.answers} answers"
    elif sizes and all(tokens is not None for _, tokens in sizes):
        prompt, basis = float(counted), "counted with tiktoken"
    else:
        prompt, basis = size * TOKENS_PER_BYTE, f"{TOKENS_PER_BYTE:.2f} tokens per byte"
    usage = Usage(round(prompt), 0, round(output * len(sizes)))
    least = Usage(size // _MAX_BYTES_PER_TOKEN, size // _MAX_BYTES_PER_TOKEN, len(sizes))
    worst = 2 * sum(price.max_cost(num_bytes, max_output_tokens, tier=tier) for num_bytes, _ in sizes)
    tokens = usage.prompt + usage.completion
    longest = max((num_bytes for num_bytes, _ in sizes), default=0)
    low = price.cost(least, longest=0)
    expected = price.cost(usage, tier=tier, longest=longest * usage.prompt // max(size, 1))
    return Estimate(len(sizes) + answered, answered, min(low, expected), min(expected, worst), worst, tokens, basis)


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
