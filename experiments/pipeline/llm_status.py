"""What a run's language model has answered and what that cost, in numbers."""

import collections
import pathlib
from typing import Any

from alkd_jax.llm.ledger import Ledger

from . import llm_account, llm_files
from .run_folder import config_of


def summarize(run: pathlib.Path) -> dict[str, Any]:
    """Counts answers and dollars, also while another process is asking.

    Args:
        run: a run's folder.

    Returns:
        "paid_usd", "possible_usd" (that may have been billed for requests without an answer) and "reserved_usd" (that
        the requests in flight cost at most); "answers", their number, "usable", those with a usable list, and
        "statuses", status → number; "requests", those "open" (in flight) and "tokens"; "failures", the five most
        frequent errors of requests that were possibly billed without an answer → number; and "refusals", those of
        requests that cost nothing.

    Raises:
        ValueError: the folder holds no run, or its store is damaged or has lost answers.
    """
    config_of(run)
    ledger, records, errors = Ledger(), [], collections.Counter[str]()
    refusals: collections.Counter[str] = collections.Counter()
    store_path = run / "llm" / llm_account.STORE
    if store_path.exists() or llm_account.recorded_totals(run) != (0, 0):
        with llm_files.open_store(run, readonly=True) as store:
            ledger, records = store.ledger, list(store.answer_records().values())
            errors.update(str(error) for _, error, _ in store.failures())
            refusals.update(str(error) for _, error, _ in store.failures("released"))
    statuses = collections.Counter(
        (record.status or "not parsed yet") + ("" if record.usable else " (unusable)") for record in records
    )
    return {
        "paid_usd": llm_account.usd(ledger.confirmed),
        "possible_usd": llm_account.usd(ledger.possible),
        "reserved_usd": llm_account.usd(ledger.reserved),
        "answers": len(records),
        "usable": sum(bool(record.usable) for record in records),
        "statuses": dict(sorted(statuses.items())),
        "requests": ledger.requests,
        "open": ledger.open,
        "tokens": ledger.tokens,
        "failures": dict(errors.most_common(5)),
        "refusals": dict(refusals.most_common(5)),
    }
