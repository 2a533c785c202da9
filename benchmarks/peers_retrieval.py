"""Peers of the exact top k: PyTorch's product and topk, and faiss's brute force, on a GPU where they find one.

Extra `peers`; what is not installed is left out. They leave no items out, which is to their advantage.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import peers_torch

FAISS_ABSENT = None if importlib.util.find_spec("faiss") else "faiss is not installed (extra `peers`)"
_SCORES = 2**28
"""Scores PyTorch holds at a time; more sessions come in parts."""


def versions() -> dict[str, str]:
    """What is there, and why the rest is not."""
    told = {"torch": peers_torch.ABSENT or str(peers_torch.version()), "faiss": FAISS_ABSENT or "here"}
    if FAISS_ABSENT is None:
        faiss = load_faiss()
        told["faiss"] = f"{faiss.__version__}, {'GPU' if faiss_gpus(faiss) else 'CPU'}"
    return told


def load_faiss() -> Any:
    """faiss, after threads were told to wait without spinning."""
    if peers_torch.ABSENT is None:
        peers_torch.load_torch()
    return importlib.import_module("faiss")


def faiss_gpus(faiss: Any) -> int:
    """Devices that faiss can use: none in its CPU build."""
    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


def by_torch(vectors: np.ndarray, table: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """One call lists all sessions."""
    torch = peers_torch.load_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    u, y = (torch.from_numpy(array).to(device) for array in (vectors, table))
    part = max(1, _SCORES // len(table))

    def run() -> np.ndarray:
        lists = [torch.topk(u[start : start + part] @ y.T, k).indices for start in range(0, len(u), part)]
        return torch.cat(lists).cpu().numpy()

    return run


def by_faiss(vectors: np.ndarray, table: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """One call lists all sessions."""
    faiss = load_faiss()
    index = faiss.IndexFlatIP(table.shape[1])
    if faiss_gpus(faiss):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(table)
    return lambda: index.search(vectors, k)[1]
