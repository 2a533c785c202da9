"""The PyTorch peer: the same backbones, loss, optimizer and evaluation in carefully written eager PyTorch.

Adam is dense and fused, scores are one product, tensors are created once, and training computes no scores of the
catalogue. PyTorch comes with the extra `peers`; without it the benchmarks omit this peer.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # Only for annotations: a process that runs this peer alone must not pay for importing JAX.
    import alkd_jax as alkd

ABSENT = None if importlib.util.find_spec("torch") else "PyTorch is not installed (extra `peers`)"
"""Why this peer cannot run; None if it can."""


def load_torch() -> Any:
    """Imports PyTorch with threads that wait without spinning, so that CPU time measures work."""
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0"), ("KMP_BLOCKTIME", "0")):
        os.environ.setdefault(name, value)
    return importlib.import_module("torch")


def version() -> str | None:
    """The version of PyTorch; None if it is absent."""
    return None if ABSENT else str(load_torch().__version__)


class Peer:
    """One backbone on the CPU with our parameters.

    Args:
        backbone: fpmc, stamp or attmix.
        params: the parameter tree of our backbone, without a seed axis.
        train: training sessions.
        learning_rate: of Adam.
        dropout: AttMix's dropout rate.
    """

    def __init__(
        self, backbone: str, params: Any, train: "alkd.Sessions", *, learning_rate: float = 1e-3, dropout: float = 0.1
    ) -> None:
        self.torch = load_torch()
        self.dropout, self.training = dropout, True
        arrays = params["params"]
        self.params = {name: self.torch.tensor(np.asarray(array), requires_grad=True) for name, array in arrays.items()}
        encoders: Mapping[str, Callable[[Any, Any], Any]] = {
            "fpmc": self.fpmc,
            "stamp": self.stamp,
            "attmix": self.attmix,
        }
        self.encode = encoders[backbone]
        self.optimizer = self.torch.optim.Adam(self.params.values(), lr=learning_rate, fused=True)
        self.items, self.mask, self.target = self.tensors(train)

    def tensors(self, sessions: "alkd.Sessions") -> tuple[Any, Any, Any]:
        """Items, mask and target as tensors."""
        items, target = (np.asarray(a).astype(np.int64) for a in (sessions.items, sessions.target))
        return (
            self.torch.from_numpy(items),
            self.torch.from_numpy(np.asarray(sessions.mask)),
            self.torch.from_numpy(target),
        )

    def embed(self, items: Any) -> Any:
        """Input vectors, zero in padded positions; the padding row gets no gradient."""
        return self.torch.nn.functional.embedding(items, self.params["input_embedding"], padding_idx=0)

    def fpmc(self, items: Any, mask: Any) -> Any:
        """Mean of the input vectors."""
        return self.embed(items).sum(1) / mask.sum(1, keepdim=True)

    def stamp(self, items: Any, mask: Any) -> Any:
        """Attention with the mean and the last item as the query."""
        p, x = self.params, self.embed(items)
        length = mask.sum(1, keepdim=True)
        mean = x.sum(1) / length
        last = x[self.torch.arange(len(x)), length[:, 0] - 1]
        query = last @ p["attention_last_kernel"] + mean @ p["attention_mean_kernel"] + p["attention_bias"]
        energy = self.torch.sigmoid(x @ p["attention_item_kernel"] + query[:, None]) @ p["attention_out_kernel"]
        # Padded positions hold zero vectors, so they add nothing.
        return (energy * x).sum(1) + mean

    def attmix(self, items: Any, mask: Any) -> Any:
        """Attention with several levels of intent, each built from the last few items."""
        torch, p, f, heads = self.torch, self.params, self.torch.nn.functional, 2
        x = f.dropout(f.normalize(self.embed(items), dim=-1), self.dropout, self.training)
        levels = sum(name.startswith("level_") and name.endswith("_kernel") for name in p) - 1
        position = mask.sum(1, keepdim=True) - 1 - torch.arange(levels)
        recent = x.gather(1, position.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1]))
        recent = recent * (position >= 0)[..., None]
        batch, length, dim = x.shape
        flat = recent.reshape(batch, levels * dim)
        queries = torch.stack(
            [
                torch.addmm(p[f"level_{i}_bias"], flat[:, : i * dim], p[f"level_{i}_kernel"])
                for i in range(1, levels + 1)
            ],
            dim=1,
        )

        def affine(y: Any, name: str) -> Any:
            return f.linear(y, p[f"{name}_kernel"].T, p[f"{name}_bias"])

        queries = affine(f.normalize(queries, dim=1), "level_query")
        keys, values = affine(x, "item_key"), affine(x, "item_value")
        head_dim = dim // heads
        energy = queries.reshape(batch, heads, levels, head_dim) @ keys.reshape(batch, heads, length, head_dim).mT
        weights = torch.softmax(2 * torch.sigmoid(energy), -1).sum(2)
        weights = torch.softmax((2 * weights).masked_fill(~mask[:, None], -torch.inf), -1)
        weights = f.dropout(weights, self.dropout, self.training)
        attended = torch.einsum("bhl,blhd->bhd", weights, values.reshape(batch, length, heads, head_dim))
        attended = f.layer_norm(
            attended.reshape(batch, dim), (dim,), p["layer_norm_scale"], p["layer_norm_bias"], eps=1e-8
        )
        return f.normalize(affine(torch.cat([attended, recent[:, 0]], -1), "merge"), dim=-1)

    def loss(self, items: Any, mask: Any, target: Any) -> Any:
        """In-batch BPR; a row with the same target is not a negative."""
        f = self.torch.nn.functional
        targets = f.embedding(target, self.params["output_embedding"])
        scores = self.encode(items, mask) @ targets.T
        allowed = target[:, None] != target
        # In PyTorch softplus takes three times as long as log-sigmoid, for the same value.
        losses = -f.logsigmoid(scores.diagonal()[:, None] - scores)
        return (losses * allowed).sum() / allowed.sum()

    def train_steps(self, steps: int, batch_size: int) -> float:
        """Takes `steps` steps over new permutations of the sessions; returns the last loss."""
        num = len(self.items)
        batch_size = min(batch_size, num)
        rows = self.torch.empty(0, dtype=self.torch.int64)
        loss = None
        for _ in range(steps):
            if len(rows) < batch_size:
                rows = self.torch.randperm(num)
            chosen, rows = rows[:batch_size], rows[batch_size:]
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.items[chosen], self.mask[chosen], self.target[chosen])
            loss.backward()
            self.optimizer.step()
        return float(loss.detach()) if loss is not None else float("nan")

    def recall(self, sessions: "alkd.Sessions", k: int, *, how: str = "top-k", batch_size: int = 512) -> float:
        """Recall@k over all sessions.

        Args:
            sessions: sessions to evaluate on.
            k: cut-off.
            how: "top-k" masks the items of the session and takes the best k; "count" counts the better scores.
            batch_size: sessions scored at a time.
        """
        torch, hits = self.torch, 0
        items, mask, target = self.tensors(sessions)
        self.training = False
        with torch.inference_mode():
            for start in range(0, len(items), batch_size):
                rows = slice(start, start + batch_size)
                scores = self.encode(items[rows], mask[rows]) @ self.params["output_embedding"].T
                target_score = scores.gather(1, target[rows, None])
                # The padding's score is masked explicitly, since a session that fills all positions has no padding.
                scores[:, 0] = -torch.inf
                scores.scatter_(1, items[rows], -torch.inf)
                if how == "top-k":
                    hits += int((scores.topk(k, 1).indices == target[rows, None]).any(1).sum())
                else:
                    hits += int(((scores > target_score).sum(1) < k).sum())
        self.training = True
        return hits / len(items)
