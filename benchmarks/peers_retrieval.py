"""Peers of the exact top-k: PyTorch's product and topk, and faiss's brute-force index, on a GPU if they find one.

They come with the extra `peers`; one that is not installed is omitted. They exclude no items, which favors them.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from . import peers_torch

FAISS_ABSENT = None if importlib.util.find_spec("faiss") else "faiss is not installed (extra `peers`)"
_MAX_SCORES = 2**28
"""Scores that PyTorch holds at a time; more sessions are processed in chunks."""


def versions() -> dict[str, str]:
    """The versions of the peers, or why they are absent."""
    versions = {"torch": peers_torch.ABSENT or str(peers_torch.version()), "faiss": FAISS_ABSENT or "here"}
    if FAISS_ABSENT is None:
        faiss = load_faiss()
        versions["faiss"] = f"{faiss.__version__}, {'GPU' if faiss_gpus(faiss) else 'CPU'}"
    return versions


def load_faiss() -> Any:
    """Imports faiss after PyTorch, if installed, so that idle threads wait without spinning."""
    if peers_torch.ABSENT is None:
        peers_torch.load_torch()
    return importlib.import_module("faiss")


def faiss_gpus(faiss: Any) -> int:
    """Number of GPUs that faiss can use; 0 in its CPU build."""
    return faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0


def torch_top_k(vectors: np.ndarray, table: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """Returns a function whose call lists the top k for all sessions."""
    torch = peers_torch.load_torch()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    u, y = (torch.from_numpy(array).to(device) for array in (vectors, table))
    chunk = max(1, _MAX_SCORES // len(table))

    def run() -> np.ndarray:
        lists = [torch.topk(u[start : start + chunk] @ y.T, k).indices for start in range(0, len(u), chunk)]
        return torch.cat(lists).cpu().numpy()

    return run


def faiss_top_k(vectors: np.ndarray, table: np.ndarray, k: int) -> Callable[[], np.ndarray]:
    """Returns a function whose call lists the top k for all sessions."""
    faiss = load_faiss()
    index = faiss.IndexFlatIP(table.shape[1])
    if faiss_gpus(faiss):
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    index.add(table)
    return lambda: index.search(vectors, k)[1]
