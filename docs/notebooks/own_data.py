# %% [markdown]
# # Own data to verdict
#
# From a table of clicks to an answer: is a small trained student worth it on these data, and can lists teach it
# something? The lists here are free. They come from counting, and cost neither money nor a server. Where such lists
# do not help a student, paid ones have to be much better to do so.
#
# Every step has a command that does the same for a large file, see the table at the end.

# %%
import csv
import datetime
import pathlib
import random
import tempfile

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax.evaluation import evaluate_seeds, significance

# %% [markdown]
# ## 1. A table
#
# Any table with users, items and times will do, whatever its columns are called. This cell writes one, with the
# flaws of real tables: a row without an item and one with a broken time. To use a table of your own, change `path`
# and the names below.

# %%
random.seed(0)
path = pathlib.Path(tempfile.mkdtemp()) / "plays.csv"
with path.open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["Listener No.", "Track (id)", "when played", "Track title"])
    for _ in range(2000):  # sessions of people who stay with an artist for a while; an artist has eight tracks
        listener, artist = f"L{random.randrange(400)}", int(30 * random.random() ** 1.5)
        at = datetime.datetime(2024, 1, 1) + datetime.timedelta(days=random.randrange(365), hours=9)
        for _ in range(random.randrange(5, 10)):
            artist = artist if random.random() < 0.6 else int(30 * random.random() ** 1.5)
            number = int(8 * random.random() ** 1.5)
            rows.writerow([listener, f"T{8 * artist + number}", at, f"Song {number + 1} of artist {artist + 1}"])
            at += datetime.timedelta(minutes=5)
    rows.writerow(["L1", "", "2024-05-01 10:00:00", "a row without an item"])
    rows.writerow(["L1", "T1", "yesterday", "a row with a broken time"])

columns = {"user": "Listener No.", "item": "Track (id)", "time": "when played", "title": "Track title"}
log = alkd.data.load_table(path, columns=columns)
print(f"{len(log):,} interactions of {len(log.user_ids)} users with {len(log.item_ids)} items")
print("what became of the rows:", log.report)

# %% [markdown]
# ## 2. Sessions and splits
#
# A session here is what one user did until a pause of half an hour. The split goes by time: earlier sessions train,
# later ones test, as it would be in use. Splits that mix times let a model see the future, and flatter it.

# %%
rules = alkd.data.SessionRules(boundary="gap", gap_minutes=30)
prepared = alkd.data.prepare(log, rules, alkd.data.SplitRules(rule="time", fractions=(0.7, 0.1, 0.2)))
ds = prepared.dataset()
print(f"{len(ds.train)} training sessions, {len(ds.validation)} for validation, {len(ds.test)} for the test")

# %% [markdown]
# ## 3. What counting alone achieves
#
# Always first: methods that only count which item follows which. Many published models are behind them.

# %%
counts = alkd.baselines.count(ds.train_sequences, ds.num_items)
ranks = {}
for name in ("popularity", "session_knn", "sequential_rules"):
    scores = alkd.baselines.fit(name, ds.train_sequences, ds.num_items)
    ranks[name] = alkd.baselines.rank_targets(scores, counts, ds.test)
    print(f"{name:18} recall@10 {np.mean(ranks[name] <= 10):.4f}")

# %% [markdown]
# ## 4. The student, plain and with free lists
#
# The lists are those of the sequential rules, for 300 training sessions. `held_out_lists` counts without the
# session that is asked about, so that its target is not in the list because it was counted.

# %%
options = {"seeds": 3, "max_steps": 300}
student = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
plain = alkd.fit(
    jax.random.key(0),
    student,
    ds.train,
    ds.validation,
    targets="all",
    sequences=ds.train_sequences,
    learning_rate=3e-3,
    **options,
)

rules_of = alkd.baselines.method("sequential_rules")
all_lists = alkd.baselines.held_out_lists(rules_of, ds.train_sequences, ds.num_items, ds.train, 25)
chosen = np.asarray(jax.random.choice(jax.random.key(1), len(ds.train), (300,), replace=False))
distilled = alkd.distill(
    jax.random.key(2), student, plain.params, ds.train, ds.validation, all_lists.take(chosen), **options
)

for name, params in (("student", plain.params), ("student with lists", distilled.params)):
    evaluations = evaluate_seeds(student, params, ds.test)
    ranks[name] = np.stack([evaluation.ranks for evaluation in evaluations])
    of_seeds = (ranks[name] <= 10).mean(1)
    print(f"{name:18} recall@10 {of_seeds.mean():.4f} ± {of_seeds.std(ddof=1):.4f}")

# %% [markdown]
# ## 5. The verdict
#
# Two differences were asked about before anything was seen, so there are two tests, corrected by Holm's method. Each
# resamples test sessions: would other sessions of the same kind give the same order?

# %%
questions = {
    "do lists help the student?": ("student with lists", "student"),
    "does it beat counting?": ("student with lists", "sequential_rules"),
}
answers = {
    question: significance.compare(np.random.default_rng(0), ranks[one], ranks[other])
    for question, (one, other) in questions.items()
}
corrected = significance.holm([found.p_randomization for found in answers.values()])
for (question, found), p in zip(answers.items(), corrected, strict=True):
    low, high = found.interval
    verdict = "not shown" if p >= 0.05 else ("yes" if found.difference > 0 else "no")
    print(f"{question:28} {verdict:10} {found.difference:+.4f} [{low:+.4f}, {high:+.4f}], corrected p = {p:.4f}")

# %% [markdown]
# On these data the student is far better than popularity, free lists teach it nothing that it has not learned from
# the sessions, and counting is ahead of both. So the rules should be served, unless ten numbers for each item are
# all that fits. Verdicts like this are common ([protocols](../protocols.md)), and better known before money is
# spent.

# %%
lists_help, beats_counting = answers.values()
assert abs(lists_help.difference) < 0.05
assert beats_counting.difference < -0.1
assert corrected[1] < 0.05
assert np.mean(ranks["student"] <= 10) > np.mean(ranks["popularity"] <= 10) + 0.05

# %% [markdown]
# ## The same by commands
#
# ```
# alkd prepare --source table:plays.csv --boundary gap --split time --out data/plays \
#     --columns "user=Listener No.,item=Track (id),time=when played,title=Track title"    # 1 and 2
# alkd audit --data prepared:data/plays --out runs/audit                                  # what to know before training
# alkd leaderboard --data prepared:data/plays --training-free --out runs/counting         # 3
# alkd reproduce --data prepared:data/plays --backbone fpmc --teacher neighbor --out runs/plays    # 4 and 5
# ```
#
# [Your own data](../data.md) explains sources, sessions and splits.
