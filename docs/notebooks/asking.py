# %% [markdown]
# # Asking a language model with a budget
#
# What the package sends, what it costs, and what happens when the money is gone. The server is a small program in
# this notebook, with the interface that OpenAI, vLLM, llama.cpp, Ollama and others have. Nothing leaves the machine
# and no key is needed. Needs the extra `llm`: `pip install "PATH_TO_CHECKOUT[llm]"`.

# %%
import contextlib
import http.server
import json
import pathlib
import re
import tempfile
import threading
from decimal import Decimal

import numpy as np

import alkd_jax as alkd
from alkd_jax.llm import prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import PICO, Price, dollars
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers.online import OnlineTeacher

# %% [markdown]
# ## 1. A server
#
# It answers `POST /v1/chat/completions`: the candidates whose titles share most words with the history come first.
# A real model is asked in the same way; only the address and the name change.


# %%
class WordMatcher(http.server.BaseHTTPRequestHandler):
    """Ranks the candidates in a question by the words that their titles share with those of the history."""

    protocol_version = "HTTP/1.1"
    questions = 0

    def do_POST(self):
        """Answers one question."""
        raw = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(raw)
        history, candidates = request["messages"][-1]["content"].split("\nCandidates:\n")
        known = re.findall(r"[A-Za-z]+", history)
        shown = [json.loads(line) for line in candidates.splitlines()]
        shown.sort(key=lambda line: -sum(known.count(word) for word in re.findall(r"[A-Za-z]+", line["title"])))
        content = json.dumps({"ranking": [line["id"] for line in shown[:25]]})
        usage = {"prompt_tokens": len(raw) // 4, "completion_tokens": len(content) // 3}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": request["model"], "choices": [choice]}
        body = json.dumps(answer | {"usage": {**usage, "total_tokens": sum(usage.values())}}).encode()
        WordMatcher.questions += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Prints nothing."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), WordMatcher)
threading.Thread(target=server.serve_forever, daemon=True).start()
base_url = f"http://127.0.0.1:{server.server_port}/v1"
print(base_url)

# %% [markdown]
# ## 2. Sessions and candidates
#
# The model ranks what another recommender proposes. Here that is a counting method, so that this notebook trains
# nothing.

# %%
ds = alkd.data.synthetic(num_items=500, num_sessions=1000, seed=0)
rules = alkd.baselines.method("sequential_rules")
proposed = alkd.baselines.held_out_lists(rules, ds.train_sequences, ds.num_items, ds.train, 50)
chosen = np.flatnonzero(np.asarray(proposed.mask).sum(1) == 50)[:60]  # a selection of your own would stand here
sessions, candidates = ds.train.take(chosen), np.asarray(proposed.items)[chosen]

# %% [markdown]
# ## 3. The question and its price
#
# A teacher is the client of a server together with the titles and the words for the kind of item. The estimate
# sends nothing. It has three amounts: the least, what is expected, and the most that the answers can cost.

# %%
price = Price(Decimal("0.40"), Decimal("1.60"))  # dollars for a million tokens of questions, and of answers
answers = pathlib.Path(tempfile.mkdtemp()) / "answers.sqlite"


@contextlib.contextmanager
def teacher(usd):
    """A teacher that spends at most so many dollars over all calls; its answers are kept in one file."""
    with Store.open(answers) as store:
        client = Client(Endpoint(base_url, "word-matcher"), store, price=price, budget=Budget(usd=Decimal(usd)))
        yield OnlineTeacher(client, ds.titles, prompts.GAMES)


with teacher("0.02") as asked:
    question = next(asked.questions(sessions, candidates))
    estimate = asked.estimate(sessions, candidates)
print(question.messages[-1]["content"][:600], "…\n")
print(f"{estimate.questions} questions: least {dollars(estimate.low)}, expected {dollars(estimate.expected)}, ", end="")
print(f"at worst {dollars(estimate.worst)}")

# %% [markdown]
# ## 4. A budget that does not suffice
#
# Before a request is sent, the most that it can cost is reserved. Where that does not fit into the budget any more,
# the run ends, with an account of what was done. So the budget is never exceeded, also not by the requests in
# flight.

# %%
with teacher("0.02") as asked:
    usage = asked.ask(sessions, candidates)
    spent = asked.client.store.ledger.confirmed
print("stopped:", usage.stopped)
print(f"{usage.done} of {usage.asked} questions answered, {WordMatcher.questions} requests arrived at the server")
print(f"spent: {dollars(spent)}")
assert spent <= Decimal("0.02") * PICO
assert 0 < usage.done < len(chosen)

# %% [markdown]
# ## 5. Going on, and paying for nothing twice
#
# Every answer is on disk before it is read. With a larger budget the same call asks what is missing, and only that.
# Another call sends nothing at all.

# %%
before = WordMatcher.questions
with teacher("0.10") as asked:
    usage = asked.ask(sessions, candidates)
    again = asked.ask(sessions, candidates)
    lists, report = asked.rank(sessions, candidates)
    spent = asked.client.store.ledger.confirmed
print(f"{WordMatcher.questions - before} more requests; once more: {again.requests} requests, {again.cached} stored")
print(f"{len(lists)} lists, {len(report['missing'])} sessions without one; spent {dollars(spent)} in all")

# %% [markdown]
# ## 6. Are the lists any good?
#
# The targets of training sessions are known, and the model has not seen them. A list that puts them first more
# often than the proposal does knows something that counting does not. This check costs nothing, and is worth doing
# before any student is trained.

# %%
target = ds.train.target[ds.train.rows_of(lists.session_id)][:, None]
of_model = (np.asarray(lists.items)[:, :5] == target).any(1).mean()
of_proposal = (candidates[:, :5] == target).any(1).mean()
print(f"target among the first five: {of_model:.2f} of the model's lists, {of_proposal:.2f} of the proposed ones")

# %% [markdown]
# Here they are not better than what was proposed, which is no wonder: the model counts words. With a real model this
# comparison decides whether the rest of the budget should be spent.

# %% [markdown]
# ## 7. In one call
#
# For a quick look, `alkd.llm.rank` does all of this at once; it takes titles and lists of items. In a notebook,
# `await` it. A server on this machine is free unless its model has a price, and then needs no budget. The same from
# the command line is in [a language model of your own](../language_model.md):
#
# ```
# alkd query_llm estimate --run runs/plays --model NAME --base-url http://127.0.0.1:8000/v1
# alkd query_llm run --run runs/plays --model NAME --base-url http://127.0.0.1:8000/v1 --budget-usd 0.50
# ```

# %%
assert WordMatcher.questions == len(chosen)  # each question was sent once
assert again.requests == 0
assert len(lists) == len(chosen)
assert spent <= Decimal("0.10") * PICO
server.shutdown()
