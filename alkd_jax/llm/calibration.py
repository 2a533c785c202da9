"""What the stored answers of a model have measured, for estimates of the next ones."""

from alkd_jax.llm.pricing import Calibration
from alkd_jax.llm.store import Store


def calibrate(store: Store, endpoint: str, model: str, kind: str = "rank") -> Calibration:
    """Measures tokens on the stored answers.

    Args:
        store: of the answers.
        endpoint: normalized base URL.
        model: as the server calls it.
        kind: of the questions, "rank" or "hints".
    """
    query = (
        "SELECT COUNT(*), SUM(r.size), SUM(json_extract(a.usage, '$.prompt')), "
        "SUM(json_extract(a.usage, '$.completion')) FROM answers a JOIN requests r USING (key) "
        "JOIN attempts t ON t.id = a.attempt "
        "WHERE t.basis = 'usage' AND r.endpoint = ? AND r.model = ? AND r.kind = ?"
    )
    count, size, prompt, completion = store.read(query, endpoint, model, kind)[0]
    return Calibration(prompt / size, completion / count, count) if count else Calibration(0.0, 0.0, 0)


def answering_tiers(store: Store, endpoint: str, model: str) -> list[str]:
    """Returns the service tiers in which a model has answered.

    Args:
        store: of the answers.
        endpoint: normalized base URL.
        model: as the server calls it.
    """
    query = "SELECT DISTINCT tier FROM answers a JOIN requests r USING (key) WHERE r.endpoint = ? AND r.model = ?"
    return [tier for (tier,) in store.read(query, endpoint, model) if tier is not None]
