# %% [markdown]
# # Distilling into an own backbone
#
# A backbone of your own takes part in everything that the built-in ones do: training with several seeds,
# distillation, evaluation, the commands. This notebook writes one in twenty lines, trains it, distills lists into
# it, and then replaces the distillation loss by an own one.

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax.evaluation import evaluate_seeds
from alkd_jax.llm.teachers.simulated import rank_by_titles

# %% [markdown]
# ## 1. The backbone
#
# A Linen module with the fields `num_items` and `dim`. `__call__` returns a vector for each session, and
# `item_embeddings` the table whose products with it are the scores. Items come as numbers, left-aligned, with
# `mask` True where there is an item. Row 0 of the table belongs to padding.
#
# This one weighs the items of a session by how recent they are, with weights that it learns.


# %%
class RecentItems(nn.Module):
    """``u = Σ_l w_l X_{i_l}``, with weights ``w = softmax(b)`` over the items counted from the last."""

    num_items: int
    dim: int
    length: int = 10

    def setup(self):
        """Declares the parameters."""
        shape = (self.num_items + 1, self.dim)
        self.inputs = self.param("input_embedding", nn.initializers.normal(0.1), shape)
        self.outputs = self.param("output_embedding", nn.initializers.normal(0.1), shape)
        self.recency = self.param("recency", nn.initializers.zeros, (self.length,))

    def __call__(self, items, mask, *, train=False):
        """Returns the session vectors ``[B, D]``."""
        steps_to_end = jnp.clip(mask.sum(1, keepdims=True) - 1 - jnp.arange(items.shape[1]), 0, self.length - 1)
        logits = jnp.where(mask, self.recency[steps_to_end], -jnp.inf)
        return jnp.einsum("bl,bld->bd", jax.nn.softmax(logits), self.inputs[items])

    def item_embeddings(self):
        """Returns the table ``[V + 1, D]``."""
        return self.outputs.at[0].set(0.0)


ds = alkd.data.synthetic(num_items=500, num_sessions=2000, seed=0)
student = RecentItems(num_items=ds.num_items, dim=10)
assert isinstance(student, alkd.models.Encoder)

# %% [markdown]
# ## 2. Training
#
# Nothing has to be registered. `fit` takes the module, trains three seeds in one call, and stops each by its
# validation recall.

# %%
options = {"seeds": 3, "max_steps": 400}
plain = alkd.fit(jax.random.key(0), student, ds.train, ds.validation, **options)
print("recency weights of the first seed, the last item first:")
print(np.asarray(jax.nn.softmax(plain.params["params"]["recency"][0])).round(2))

# %% [markdown]
# ## 3. Lists to learn from
#
# Any `alkd.Rankings` will do: those of a language model, of a file, of another recommender. Here the simulated
# language model ranks what a counting method proposes, for 300 training sessions.

# %%
rules = alkd.baselines.method("sequential_rules")
proposed = alkd.baselines.held_out_lists(rules, ds.train_sequences, ds.num_items, ds.train, 50)
rows = np.asarray(jax.random.choice(jax.random.key(1), len(ds.train), (300,), replace=False))
lists = rank_by_titles(0, ds.train.take(rows), np.asarray(proposed.items)[rows], ds.titles, accuracy=0.9)

# %% [markdown]
# ## 4. Distillation, as in the paper
#
# The trained student is trained further on pairs of session and listed item.

# %%
splits = ds.train, ds.validation
distilled = alkd.distill(jax.random.key(2), student, plain.params, *splits, lists, **options)

# %% [markdown]
# ## 5. An own distillation loss
#
# A loss is any function of parameters and batch. `distill` gives it one example for each session and listed item,
# with its weight, as `batch.items`, `batch.mask`, `batch.target` and `batch.weight`. This one is the full softmax,
# with logits divided by a temperature. `jax.tree_util.Partial` holds what the loss reads, so that another value
# compiles nothing new.


# %%
def softmax_loss(temperature, params, batch, key):
    """Mean over the batch of ``−log softmax(Y u / T)`` at the listed item."""
    vectors = alkd.objectives.encode(student, params, batch, key)
    table = student.apply(params, method="item_embeddings")[1:]  # without padding
    log_p = jax.nn.log_softmax(vectors @ table.T / temperature)
    picked = jnp.take_along_axis(log_p, batch.target[:, None] - 1, axis=1)[:, 0]
    return -(batch.weight * picked).sum() / jnp.maximum(batch.weight.sum(), 1)


own_loss = jax.tree_util.Partial(softmax_loss, jnp.asarray(0.7))
by_own_loss = alkd.distill(jax.random.key(2), student, plain.params, *splits, lists, loss=own_loss, **options)

# %% [markdown]
# ## 6. What it brought

# %%
recall = {}
for name, params in (("plain", plain.params), ("distilled", distilled.params), ("own loss", by_own_loss.params)):
    recall[name] = np.array([test.metrics["recall@10"] for test in evaluate_seeds(student, params, ds.test)])
    print(
        f"{name:10} recall@10 {recall[name].mean():.4f} ± {recall[name].std(ddof=1):.4f} over {options['seeds']} seeds"
    )

# %% [markdown]
# In a file `mypkg/models.py` the class can be named by any command. Methods, selections, teachers and readers are
# named in the same way: [own parts](../own_parts.md).
#
# ```
# alkd reproduce --data synthetic --selection own --backbone mypkg.models:RecentItems --out runs/own-backbone
# ```
#
# One thing needs more: exporting a student for production, which the built-in backbones can, needs its forward pass
# without JAX.

# %%
assert recall["distilled"].mean() > recall["plain"].mean() + 0.005
assert recall["own loss"].mean() > recall["plain"].mean() + 0.005
