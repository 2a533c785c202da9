"""A store of answers that no server has given."""

from alkd_jax.llm.answers import Answer
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.parsing import ParsedAnswer
from alkd_jax.llm.store import Store
from alkd_jax.llm.token_usage import Usage
from tests.helpers.llm_questions import question

ENDPOINT = Endpoint("http://127.0.0.1:1/v1", "m")


def fill_store(path, num=60):
    """Returns a new store, open, with an answer to each of `num` questions: 100, 101, … pico-dollars."""
    store = Store.open(path)
    for number in range(num):
        asked = question(number)
        attempt = store.begin_attempt(ENDPOINT.request(asked), cost=900, tokens=90)
        answer = Answer('{"ranking": []}', "stop", None, Usage(10, 0, 5), "m", None, None, "id", b"{}" * 200)
        store.record_answer(attempt, answer, cost=100 + number, tokens=15, basis="usage")
        store.record_parse(attempt, ParsedAnswer("ok", asked.candidates[:25], repairs={"short": 1}))
    return store
