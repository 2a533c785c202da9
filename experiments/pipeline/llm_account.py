"""The account of a run's calls to a language model, `llm/account.json`, and whether the store still holds what it says.

The store counts every answer itself. The account is a second record, by which a store that has lost answers is
recognized before anything is paid twice.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from alkd_jax.errors import shown
from alkd_jax.io import read_object, write_json
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import PICO, dollars
from alkd_jax.llm.store import Store
from alkd_jax.llm.usage import UsageReport

STORE, ACCOUNT = "answers.sqlite", "account.json"


def read_account(run: pathlib.Path) -> dict[str, Any]:
    """Reads the account of a run.

    Args:
        run: the run's folder.

    Returns:
        "calls", the usage of each call, and "store", the totals of the store after the last; both are empty where
        there is no account.

    Raises:
        ValueError: the file is damaged.
    """
    path = run / "llm" / ACCOUNT
    if not path.exists():
        return {"calls": [], "store": {}}
    account = read_object(path)
    calls, totals = account.get("calls"), account.get("store")
    are_calls = isinstance(calls, list) and all(isinstance(call, dict) and _has_seconds(call) for call in calls)
    if not are_calls or not isinstance(totals, dict) or not all(_is_total(total) for total in totals.values()):
        raise ValueError(
            f"{path}: {shown(account)}; expected `calls` with their seconds and `store` with its totals: restore the "
            f"file, or move it away if {STORE} is whole"
        )
    return account


def _has_seconds(call: Mapping[str, Any]) -> bool:
    seconds = call.get("seconds")
    return isinstance(seconds, int | float) and 0 <= seconds < math.inf


def _is_total(value: object) -> bool:
    return type(value) is int and value >= 0


def save_usage(run: pathlib.Path, usage: UsageReport, store: Store) -> None:
    """Appends the usage of one call to the account, with the totals of the store."""
    call = usage.as_json() | {"ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    calls = [*read_account(run)["calls"], call]
    write_json(run / "llm" / ACCOUNT, {"calls": calls, "store": dataclasses.asdict(store.ledger)})


def usd(pico: int) -> float:
    """Returns pico-dollars in dollars."""
    return pico / PICO


def check_store(run: pathlib.Path, ledger: Ledger | None) -> None:
    """Checks that a store holds all that the account says was paid.

    Args:
        run: the run's folder.
        ledger: of the store; None where it is missing or empty.

    Raises:
        ValueError: the store holds less than the account says.
    """
    path, (requests, spent) = run / "llm" / STORE, recorded_totals(run)
    found = (0, 0) if ledger is None else _totals(dataclasses.asdict(ledger))
    if found[0] >= requests and found[1] >= spent:
        return
    state = f"holds {found[0]} requests" if ledger else "is empty" if path.exists() else "is missing"
    raise ValueError(
        f"{path} {state}; expected the {requests} requests and {dollars(spent)} that {ACCOUNT} beside it says were "
        f"paid: restore {STORE} from a backup, or move both files away to begin anew and pay again"
    )


def recorded_totals(run: pathlib.Path) -> tuple[int, int]:
    """Returns the requests and the pico-dollars that a run's account says were paid or possibly billed."""
    return _totals(read_account(run)["store"])


def _totals(ledger: Mapping[str, int]) -> tuple[int, int]:
    """Returns requests and pico-dollars without those in flight, which therefore never fall."""
    requests, in_flight, confirmed, possible = (
        ledger.get(name, 0) for name in ("requests", "open", "confirmed", "possible")
    )
    return requests - in_flight, confirmed + possible
