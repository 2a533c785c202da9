# %% [markdown]
# # The method in one hour
#
# A recommender for sessions ranks all items of a catalogue by which one comes next. A large one ranks well and is
# expensive to serve; a small *student* is cheap and weak. ALKDRec (Du et al., AAAI 2025) lets a large language
# model rank candidates for a few hundred training sessions, which a game selects, and distills its lists into the
# student.
#
# This notebook goes through the method step by step, on built-in data, with a simulated language model. Nothing is
# downloaded and nothing is sent. The cells take less than a minute; the rest of the hour is for reading.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import selection
from alkd_jax.evaluation import evaluate_seeds, significance
from alkd_jax.llm.teachers.simulated import rank_by_titles

# %% [markdown]
# ## 1. Sessions
#
# The built-in data have a catalogue of games with titles such as "Iron Harbour 3: Racing". People play sequels,
# other games of a series, and games of a genre. Titles tell all of that; the numbers of the items tell nothing.
#
# Items are numbers from 1, and 0 is padding. Of each session, the last item is the *target* and the items before it
# are known. Models train on one part of the sessions, stop by another, and are judged on the third.

# %%
ds = alkd.data.synthetic(num_items=500, num_sessions=2000, seed=0)
print(f"{ds.num_items} items; sessions: {len(ds.train)} train, {len(ds.validation)} validation, {len(ds.test)} test")

row = 4
for item in ds.train.items[row][ds.train.mask[row]]:
    print("  ", ds.titles[item])
print("→ ", ds.titles[ds.train.target[row]])

# %% [markdown]
# ## 2. A conventional teacher and a student
#
# Both have the same backbone, FPMC: the score of item *v* after a session is a product of two vectors. The teacher
# has 100 numbers for each item and the student 10. The student is trained with three seeds in one call, because a
# difference between two methods means little if another seed reverses it.

# %%
options = {"max_steps": 400}
teacher = alkd.models.create("fpmc", num_items=ds.num_items, dim=100)
student = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
trained_teacher = alkd.fit(jax.random.key(0), teacher, ds.train, ds.validation, **options)
plain = alkd.fit(jax.random.key(1), student, ds.train, ds.validation, seeds=3, **options)


def recall(evaluations):
    """Recall@10 of each seed: the share of test sessions whose target is among the ten best items."""
    return np.array([evaluation.metrics["recall@10"] for evaluation in evaluations])


plain_tests = evaluate_seeds(student, plain.params, ds.test)
print("teacher:", recall(evaluate_seeds(teacher, trained_teacher.params, ds.test)))
print("student:", recall(plain_tests))

# %% [markdown]
# ## 3. Which sessions should be asked about?
#
# An answer about a session can be *effective* (the model lists what the student needs), *similar* (of some use) or
# *incorrect* (it does harm). How many answers will be of each kind is roughly known; which ones is not. So the
# choice of sessions is a game against an adversary who distributes the kinds. Its solution is a probability for
# each session.
#
# What is at stake in each session depends on its *difficulty*: how badly the teacher tells the session's own items
# from all others. `solve_game` returns a policy and a proof: no policy has a worst case above `upper`, and this
# one's is `lower`.

# %%
teacher_params = jax.tree.map(lambda leaf: leaf[0], trained_teacher.params)  # of the only seed
items, mask = jnp.asarray(ds.train.items), jnp.asarray(ds.train.mask)
vectors = teacher.apply(teacher_params, items, mask)
table = teacher.apply(teacher_params, method="item_embeddings")

gains = selection.gains(selection.difficulty_rank(selection.difficulty(vectors, table, items, mask)))
num_effective, num_similar, num_incorrect = selection.class_counts(len(ds.train))
game = alkd.solve_game(
    gains.effective,
    gains.similar,
    gains.incorrect,
    log_gains=True,
    num_effective=num_effective,
    num_similar=num_similar,
)
print(f"assumed: {num_effective} effective, {num_similar} similar, {num_incorrect} incorrect answers")
print(f"worst case: {game.lower:.4f}, at most {game.upper:.4f} for any policy")

selected = np.asarray(alkd.select_sessions(jax.random.key(2), game.log_policy, num=200))

# %% [markdown]
# ## 4. The language model ranks candidates
#
# For every selected session the teacher proposes 50 candidates, and the language model orders the best 25. It sees
# titles only, never the target. Here a program stands in for it, which reads the titles as a person would and
# answers one question in ten at random. [Asking a language model with a budget](asking.py) puts a server in its
# place.


# %%
def ask_about(rows):
    """Lists of the simulated language model for some training sessions."""
    _, candidates = alkd.top_k(vectors[rows], table, 50, exclude=items[rows])
    return rank_by_titles(0, ds.train.take(rows), np.asarray(candidates), ds.titles, num_ranked=25, accuracy=0.9)


lists = ask_about(selected)
session = ds.train.take(selected[:1])
print("session:", [ds.titles[item] for item in session.items[0][session.mask[0]]])
print("list:   ", [ds.titles[item] for item in lists.items[0][:5]])

# %% [markdown]
# ## 5. Distillation
#
# The trained student is trained further: an item of the list should score higher than other items of the batch,
# with a weight of 3 for the first five positions, 2 for the next ten and 1 for the rest. Early stopping keeps the
# student of the best validation.

# %%
distilled = alkd.distill(jax.random.key(3), student, plain.params, ds.train, ds.validation, lists, seeds=3, **options)
distilled_tests = evaluate_seeds(student, distilled.params, ds.test)

# %% [markdown]
# ## 6. What did it bring, and what did the selection bring?
#
# Two questions, two comparisons. Against the plain student, we see what the lists bring. Against a student that was
# distilled from lists for *randomly* chosen sessions, we see what the game brings.

# %%
random_rows = np.asarray(jax.random.choice(jax.random.key(5), len(ds.train), (200,), replace=False))
from_random = alkd.distill(
    jax.random.key(3), student, plain.params, ds.train, ds.validation, ask_about(random_rows), seeds=3, **options
)
random_tests = evaluate_seeds(student, from_random.params, ds.test)


def ranks(evaluations):
    """Ranks of the targets by seed and test session."""
    return np.stack([evaluation.ranks for evaluation in evaluations])


comparisons = {
    "distilled − plain": significance.compare(np.random.default_rng(0), ranks(distilled_tests), ranks(plain_tests)),
    "game − random": significance.compare(np.random.default_rng(0), ranks(distilled_tests), ranks(random_tests)),
}
for name, tests in (("plain", plain_tests), ("distilled", distilled_tests), ("random", random_tests)):
    print(f"{name:10} recall@10 {recall(tests).mean():.4f} ± {recall(tests).std(ddof=1):.4f}")
for name, found in comparisons.items():
    low, high = found.interval
    print(f"{name:18} {found.difference:+.4f} [{low:+.4f}, {high:+.4f}], p = {found.p_randomization:.4f} over sessions")

# %% [markdown]
# The headline: the same student, with lists for 200 of 1,200 sessions, finds the target in its first ten more
# often, and the difference holds over sessions. Of the game's advantage over a random choice, these data show
# nothing; neither do the authors' own ([results](../results.md)). A proof about the worst case is no promise about
# the average.

# %%
gain = comparisons["distilled − plain"]
assert recall(distilled_tests).mean() > recall(plain_tests).mean() + 0.005
assert gain.p_randomization < 0.1
assert game.upper - game.lower < 1e-4 * game.value
