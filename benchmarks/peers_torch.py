"""The careful peer: the same backbones, loss, optimizer and evaluation in eager PyTorch, without waste.

Dense Adam in one fused kernel, scores as one product, tensors made once, no catalogue scores while training. Extra
`bench`; without PyTorch the benchmarks leave this peer out.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # Only named: a process of this peer's own is not to pay for importing JAX.
    import alkd_jax as alkd

ABSENT = None if importlib.util.find_spec("torch") else "PyTorch is not installed (extra `peers`)"
"""Why there is no peer; None where there is one."""


def load_torch() -> Any:
    """PyTorch with threads that wait without spinning, so that CPU time is work."""
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0"), ("KMP_BLOCKTIME", "0")):
        os.environ.setdefault(name, value)
    return importlib.import_module("torch")


def version() -> str | None:
    """The version of PyTorch, None where it is absent."""
    return None if ABSENT else str(load_torch().__version__)


class Peer:
    """One backbone on the CPU with our parameters.

    Args:
        backbone: fpmc, stamp or attmix.
        params: our parameter tree, without a seed axis; arrays of any kind.
        train: sessions to learn from.
        learning_rate: of Adam.
        dropout: AttMix's.
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

    def look_up(self, items: Any) -> Any:
        """Input vectors, zero in free positions; the padding row gets no gradient."""
        return self.torch.nn.functional.embedding(items, self.params["input_embedding"], padding_idx=0)

    def fpmc(self, items: Any, mask: Any) -> Any:
        """Mean of the input vectors."""
        return self.look_up(items).sum(1) / mask.sum(1, keepdim=True)

    def stamp(self, items: Any, mask: Any) -> Any:
        """Attention steered by the mean and the last item."""
        p, x = self.params, self.look_up(items)
        length = mask.sum(1, keepdim=True)
        mean = x.sum(1) / length
        last = x[self.torch.arange(len(x)), length[:, 0] - 1]
        steering = last @ p["attention_last_kernel"] + mean @ p["attention_mean_kernel"] + p["attention_bias"]
        energy = self.torch.sigmoid(x @ p["attention_item_kernel"] + steering[:, None]) @ p["attention_out_kernel"]
        # Free positions hold zero vectors, so their energy adds nothing.
        return (energy * x).sum(1) + mean

    def attmix(self, items: Any, mask: Any) -> Any:
        """Several levels of intent over the session's end."""
        torch, p, f, heads = self.torch, self.params, self.torch.nn.functional, 2
        x = f.dropout(f.normalize(self.look_up(items), dim=-1), self.dropout, self.training)
        levels = sum(name.startswith("level_") and name.endswith("_kernel") for name in p) - 1
        place = mask.sum(1, keepdim=True) - 1 - torch.arange(levels)
        recent = x.gather(1, place.clamp(min=0)[..., None].expand(-1, -1, x.shape[-1])) * (place >= 0)[..., None]
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
        part = dim // heads
        energy = queries.reshape(batch, heads, levels, part) @ keys.reshape(batch, heads, length, part).mT
        weights = torch.softmax(2 * torch.sigmoid(energy), -1).sum(2)
        weights = torch.softmax((2 * weights).masked_fill(~mask[:, None], -torch.inf), -1)
        weights = f.dropout(weights, self.dropout, self.training)
        attended = torch.einsum("bhl,blhd->bhd", weights, values.reshape(batch, length, heads, part))
        attended = f.layer_norm(
            attended.reshape(batch, dim), (dim,), p["layer_norm_scale"], p["layer_norm_bias"], eps=1e-8
        )
        return f.normalize(affine(torch.cat([attended, recent[:, 0]], -1), "merge"), dim=-1)

    def loss(self, items: Any, mask: Any, target: Any) -> Any:
        """In-batch BPR; equal targets are no negatives of each other."""
        f = self.torch.nn.functional
        targets = f.embedding(target, self.params["output_embedding"])
        scores = self.encode(items, mask) @ targets.T
        allowed = target[:, None] != target
        # Softplus is three times as slow as log-sigmoid in PyTorch, for the same number.
        losses = -f.logsigmoid(scores.diagonal()[:, None] - scores)
        return (losses * allowed).sum() / allowed.sum()

    def train_steps(self, steps: int, batch_size: int) -> float:
        """Takes so many steps over fresh permutations; returns the last loss."""
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
        """Recall at k over all sessions.

        Args:
            sessions: what to evaluate on.
            k: cut-off.
            how: "top-k" masks what was seen and takes the best k; "count" counts better scores.
            batch_size: sessions scored at a time.
        """
        torch, hits = self.torch, 0
        items, mask, target = self.tensors(sessions)
        self.training = False
        with torch.inference_mode():
            for part in range(0, len(items), batch_size):
                rows = slice(part, part + batch_size)
                scores = self.encode(items[rows], mask[rows]) @ self.params["output_embedding"].T
                own = scores.gather(1, target[rows, None])
                # Free positions hold 0, which masks the padding too; full sessions have it masked by hand.
                scores[:, 0] = -torch.inf
                scores.scatter_(1, items[rows], -torch.inf)
                if how == "top-k":
                    hits += int((scores.topk(k, 1).indices == target[rows, None]).any(1).sum())
                else:
                    hits += int(((scores > own).sum(1) < k).sum())
        self.training = True
        return hits / len(items)
