"""Has an embedding model give vectors of the items' titles, within a budget: a file that `--item-vectors` takes.

    python -m experiments.embed_items --data prepared:data/own --model NAME --budget-usd 0.10 --out vectors.npz

What is paid for is kept in `vectors.npz.sqlite` beside the file, so that a run that was stopped, by Ctrl-C or by the
budget, continues with the same command, and a larger catalogue pays for its new titles only. The API key is read from
the environment and nowhere else. `--estimate` prints what the vectors would cost and sends nothing.
"""

import asyncio
import dataclasses
import pathlib
from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.data.readers import registry
from alkd_jax.io import replacing
from alkd_jax.llm import embeddings, prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import TOKENS_PER_BYTE, Price, dollars
from alkd_jax.llm.store import Store
from alkd_jax.llm.token_usage import Usage

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.compact_students import has_titles
from .pipeline.console import cli_errors, print_line
from .pipeline.llm_options import LLMSettings


@dataclasses.dataclass(frozen=True)
class EmbedItems:
    """The options of the command.

    Attributes:
        data: source of the data, whose items need titles.
        out: the file of the vectors, .npz.
        model: name of the embedding model on the server.
        price_input: dollars per million prompt tokens, for a model whose price is not known here.
        dimensions: numbers of a vector, of models that give several; by default the model's own.
        texts_per_request: titles in a request at most.
        rpm: requests per minute at most.
        in_flight: requests in flight at most.
        timeout: seconds for one request in all.
        allow_http: allow sending the key unencrypted to another machine.
        estimate: print what it would cost, and send nothing.
    """

    data: options.Data
    out: pathlib.Path
    model: str
    base_url: light_options.BaseUrl = "https://api.openai.com/v1"
    budget_usd: light_options.BudgetUsd = None
    api_key_env: light_options.ApiKeyEnv = None
    prices: light_options.PricesFile = None
    price_input: str | None = None
    dimensions: int | None = None
    texts_per_request: int = 32
    rpm: int | None = None
    in_flight: int = 4
    timeout: int = 120
    allow_http: bool = False
    estimate: bool = False
    overwrite: options.Overwrite = False

    def check(self) -> None:
        """Raises ValueError where an option is out of range."""
        check_one_of("the ending of --out", self.out.suffix, (".npz",))
        check_count(1, **{"--texts-per-request": self.texts_per_request, "--in-flight": self.in_flight})
        if self.dimensions is not None:
            check_count(1, **{"--dimensions": self.dimensions})
        if self.out.exists() and not (self.overwrite or self.estimate):
            raise ValueError(f"{self.out} exists; expected a new file, or --overwrite")

    @property
    def store(self) -> pathlib.Path:
        """The file of what was paid for."""
        return self.out.with_name(f"{self.out.name}.sqlite")

    @property
    def llm(self) -> LLMSettings:
        """Server, model, price and limits, as a language model's."""
        return LLMSettings.like(self, self.out.parent, price_output=self.price_input)


def item_texts(dataset: alkd.Dataset) -> dict[int, str]:
    """Returns item → its cleaned title, of the items that have one.

    Raises:
        ValueError: most items have no title.
    """
    if not has_titles(dataset):
        raise ValueError(f"most items of {dataset.name} have no title; expected titles to embed")
    titles = dataset.titles
    return {item: prompts.clean_title(titles[item]) for item in range(1, dataset.num_items + 1) if titles[item].strip()}


def estimate_line(client: Client, requests: list[dict[str, Any]], num_texts: int) -> str:
    """Returns what the open requests will cost, in a line."""
    size = sum(request["size"] for request in requests)
    tokens = round(size * TOKENS_PER_BYTE)
    about = f"{num_texts:,} titles, {len(requests):,} requests to send, about {tokens:,} tokens"
    if client.price is None:
        return f"{about}; price unknown: give --price-input in dollars per million tokens"
    if client.price.is_free:
        return f"{about}; free"
    expected, most = client.price.cost(Usage(tokens, 0, 0)), sum(client.max_cost(request)[0] for request in requests)
    return f"{about}: {dollars(expected)} expected, {dollars(most)} at most ({client.price.source})"


def embed_items(args: EmbedItems) -> None:
    """Asks for the vectors that are missing, and writes the file.

    Raises:
        ValueError: an option is out of range, the items have no titles, money cannot be capped, or some vectors are
            missing; the same command goes on then.
    """
    args.check()
    dataset = registry.read(args.data)
    texts, settings = item_texts(dataset), args.llm
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(args.store) as store:
        client = settings.client(store, budget=Budget(requests=0) if args.estimate else None)
        some: dict[str, Any] = {"dimensions": args.dimensions, "texts_per_request": args.texts_per_request}
        requests = embeddings.open_requests(client, list(texts.values()), **some)
        print_line(estimate_line(client, requests, len(texts)))
        if args.estimate:
            return
        settings.endpoint.api_key()
        found = asyncio.run(embeddings.embed(client, list(texts.values()), **some))
        print_cost(store, client.price, found.usage.requests)
        for warning in found.usage.warnings:
            print_line(f"warning: {warning}")
    if found.vectors is None:
        raise ValueError(
            f"{found.missing:,} titles have no vector yet ({found.usage.stopped}); the same command goes on"
        )
    vectors = np.zeros((dataset.num_items + 1, found.vectors.shape[1]), np.float32)
    vectors[list(texts)] = found.vectors
    write_vectors(args.out, vectors, dataset.item_ids)
    print_line(f"{args.out}: {len(texts):,} of {dataset.num_items:,} items, {vectors.shape[1]} numbers each")


def print_cost(store: Store, price: Price | None, requests: int) -> None:
    """Prints what was sent now, and what all vectors in the store have cost."""
    ledger = store.ledger
    cost = "cost unknown" if price is None else f"{dollars(ledger.confirmed)} spent in all"
    if ledger.possible:
        cost += f", {dollars(ledger.possible)} more may have been billed"
    print_line(f"{requests:,} requests sent; {cost}, {ledger.tokens:,} tokens")


def write_vectors(file: pathlib.Path, vectors: np.ndarray, item_ids: Any) -> None:
    """Writes vectors with the raw ids of their items; the file is complete or absent."""
    ids = np.array(["", *(str(item) for item in item_ids[1:])])
    with replacing(file) as partial, open(partial, "wb") as opened:
        np.savez_compressed(opened, vectors=vectors, ids=ids)


def main() -> None:
    """Entry point."""
    with cli_errors():
        embed_items(parse(EmbedItems, "embed_items", __doc__))


if __name__ == "__main__":
    main()
