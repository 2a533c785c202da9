"""NumPy references of backbones in float64, written from the papers' equations: one session at a time, no padding."""

import itertools
import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gated_unit(xs, kernel, bias=None, *, reset):
    """The states of a gated recurrent unit; an input holds those of the reset gate, update gate and candidate."""
    dim = len(kernel)
    u_r, u_z, u_h = kernel[:, :dim], kernel[:, dim : 2 * dim], kernel[:, 2 * dim :]
    b_r, b_z, b_h = np.zeros((3, dim)) if bias is None else bias.reshape(3, dim)
    h, states = np.zeros(dim), []
    for x in xs:
        r = sigmoid(x[:dim] + h @ u_r + b_r)
        z = sigmoid(x[dim : 2 * dim] + h @ u_z + b_z)
        past = (r * h) @ u_h + b_h if reset == "before" else r * (h @ u_h + b_h)
        h = (1 - z) * h + z * np.tanh(x[2 * dim :] + past)
        states.append(h)
    return states


def narm(p, session, *, reset="before", **_):
    """Li et al. 2017, eq. 3-10."""
    h = gated_unit(
        [p["input_embedding"][item] @ p["input_kernel"] for item in session], p["hidden_kernel"], reset=reset
    )
    local = 0
    for state in h:
        hidden = sigmoid(h[-1] @ p["attention_last_kernel"] + state @ p["attention_item_kernel"])
        local = local + (hidden @ p["attention_out_kernel"])[0] * state
    return np.concatenate([h[-1], local]) @ p["merge_kernel"]


def srgnn(p, session, *, edges="counted", reset="before", steps=1):
    """Wu et al. 2019, eq. 1-7, over the distinct items of the session."""
    nodes = sorted(set(session))
    count = np.zeros((len(nodes), len(nodes)))
    for before, after in itertools.pairwise(session):
        place = nodes.index(before), nodes.index(after)
        count[place] = count[place] + 1 if edges == "counted" else 1
    outgoing = count / np.maximum(count.sum(1, keepdims=True), 1)
    incoming = (count / np.maximum(count.sum(0, keepdims=True), 1)).T
    v = p["input_embedding"][nodes]
    dim = v.shape[1]
    for _ in range(steps):
        received = [
            incoming @ v @ p["incoming_kernel"] + p["incoming_bias"],
            outgoing @ v @ p["outgoing_kernel"] + p["outgoing_bias"],
        ]
        a = np.concatenate(received, axis=1) @ p["input_kernel"]
        u_r, u_z, u_h = np.split(p["hidden_kernel"], 3, axis=1)
        r, z = sigmoid(a[:, :dim] + v @ u_r), sigmoid(a[:, dim : 2 * dim] + v @ u_z)
        candidate = np.tanh(a[:, 2 * dim :] + ((r * v) @ u_h if reset == "before" else r * (v @ u_h)))
        v = (1 - z) * v + z * candidate
    last = v[nodes.index(session[-1])]
    total = np.zeros(dim)
    for item in session:
        row = v[nodes.index(item)]
        hidden = last @ p["attention_last_kernel"] + row @ p["attention_item_kernel"] + p["attention_bias"]
        total += (sigmoid(hidden) @ p["attention_out_kernel"])[0] * row
    return np.concatenate([last, total]) @ p["merge_kernel"]


def norm_of_layer(x, p, name):
    mean = x.mean()
    return (x - mean) / math.sqrt(((x - mean) ** 2).mean() + 1e-12) * p[f"{name}_scale"] + p[f"{name}_bias"]


def core(p, session, *, variant="trm", layers=2, heads=2, temperature=0.07, **_):
    """Hou et al. 2022, eq. 3-6; a causal transformer with the norm after each residual."""
    x = p["input_embedding"][session]
    energy = np.zeros(len(session))
    if variant == "trm":
        width = x.shape[1] // heads
        h = [norm_of_layer(row + p["position_embedding"][place], p, "input_norm") for place, row in enumerate(x)]
        for n in range(1, layers + 1):

            def affine(row, part, n=n):
                return row @ p[f"layer_{n}_{part}_kernel"] + p[f"layer_{n}_{part}_bias"]

            following = []
            for t, row in enumerate(h):
                attended = []
                for head in range(heads):
                    own = slice(head * width, (head + 1) * width)
                    query = affine(row, "query")[own]
                    scores = np.array([query @ affine(h[j], "key")[own] for j in range(t + 1)]) / math.sqrt(width)
                    weight = np.exp(scores) / np.exp(scores).sum()
                    attended.append(sum(w * affine(h[j], "value")[own] for j, w in enumerate(weight)))
                row = norm_of_layer(row + affine(np.concatenate(attended), "attended"), p, f"layer_{n}_attention_norm")
                inner = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in affine(row, "inner")]
                row = norm_of_layer(row + affine(np.array(inner), "outer"), p, f"layer_{n}_feed_forward_norm")
                following.append(row)
            h = following
        energy = np.array([(row @ p["readout_kernel"] + p["readout_bias"])[0] for row in h])
    mean = (np.exp(energy) / np.exp(energy).sum()) @ x
    return mean / np.linalg.norm(mean) / temperature


def unit_rows(p, **_):
    return p["input_embedding"] / np.linalg.norm(p["input_embedding"], axis=1, keepdims=True)


def gru4rec(p, session, *, embedding="constrained", layers=1, **_):
    """Hidasi et al. 2016, eq. 1-4; with an embedding the unit has the reset gate after the product, as in cuDNN."""
    x = [p["input_embedding"][item] for item in session]
    for n in range(1, layers + 1):
        kernel, bias = p[f"unit_{n}_hidden_kernel"], p[f"unit_{n}_input_bias"]
        if n == 1 and embedding == "none":
            x = gated_unit([row + bias for row in x], kernel, reset="before")
        else:
            inputs = [row @ p[f"unit_{n}_input_kernel"] + bias for row in x]
            x = gated_unit(inputs, kernel, p[f"unit_{n}_hidden_bias"], reset="after")
    return np.append(x[-1], 1)


def biased_rows(p, *, embedding="constrained", **_):
    table = p["input_embedding" if embedding == "constrained" else "output_embedding"]
    return np.concatenate([table, p["output_bias"][:, None]], axis=1)


ENCODERS = {"narm": narm, "srgnn": srgnn, "core": core, "gru4rec": gru4rec}
"""Name of a backbone → its session vector."""

TABLES = {
    "narm": lambda p, **_: p["input_embedding"],
    "srgnn": lambda p, **_: p["input_embedding"],
    "core": unit_rows,
    "gru4rec": biased_rows,
}
"""Name of a backbone → its table Y."""
