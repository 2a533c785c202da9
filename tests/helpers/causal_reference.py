"""SASRec, eSASRec and HSTU in plain NumPy and float64, one position at a time, written from the papers' equations."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def norm(x):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-8)


def affine(params, name, x):
    return norm(x) * params[f"{name}_scale"] + params[f"{name}_bias"]


def linear(params, name, x):
    bias = params.get(f"{name}_bias", 0.0)
    return x @ params[f"{name}_kernel"] + bias


def attend(query, keys, values, heads):
    """One query over the positions up to its own."""
    outputs = []
    for q, k, v in zip(np.split(query, heads), np.split(keys, heads, 1), np.split(values, heads, 1), strict=True):
        weight = np.exp(k @ q / np.sqrt(len(q)))
        outputs.append(weight @ v / weight.sum())
    return np.concatenate(outputs)


def sasrec_block(model, params, h, seconds):
    out = []
    normal = np.stack([affine(params, "attention_norm", row) for row in h])
    source = h if model.variant == "original" else normal
    keys, values = linear(params, "key", source), linear(params, "value", source)
    for position, n in enumerate(normal):
        seen = slice(0, position + 1)
        attended = attend(linear(params, "query", n), keys[seen], values[seen], model.heads)
        if model.variant == "original":
            inner = residual = affine(params, "forward_norm", n + attended)
        else:
            residual = h[position] + linear(params, "attention_out", attended)
            inner = affine(params, "forward_norm", residual)
        out.append(residual + linear(params, "outer", np.maximum(linear(params, "inner", inner), 0)))
    return np.stack(out)


def esasrec_block(model, params, h, seconds):
    out = []
    normal = np.stack([affine(params, "attention_norm", row) for row in h])
    keys, values = linear(params, "key", normal), linear(params, "value", normal)
    for position, n in enumerate(normal):
        seen = slice(0, position + 1)
        attended = attend(linear(params, "query", n), keys[seen], values[seen], model.heads)
        gate = sigmoid(linear(params, "attention_gate", h[position]))
        x = h[position] + gate * linear(params, "attention_out", attended)
        inner = affine(params, "forward_norm", x)
        forward = linear(params, "outer", silu(linear(params, "gate", inner)) * linear(params, "inner", inner))
        out.append(x + sigmoid(linear(params, "forward_gate", x)) * forward)
    return np.stack(out)


def seconds_of(mask):
    """Times that lie the further apart the later they are, from one second to more than a day."""
    return np.where(mask, np.cumsum(mask, axis=1) ** 6, 0).astype(np.int32)


def hstu_block(model, params, h, seconds):
    normal = np.stack([norm(row) for row in h])
    u, v, q, k = np.split(silu(linear(params, "joint", normal)), 4, axis=1)
    out = []
    for position in range(len(h)):
        total = np.zeros((model.heads, model.dim // model.heads))
        for earlier in range(position + 1):
            pairs = zip(*(np.split(row, model.heads) for row in (q[position], k[earlier], v[earlier])), strict=True)
            for head, (query, key, value) in enumerate(pairs):
                bias = params["relative_bias"][position - earlier]
                if model.time:
                    elapsed = max(1, seconds[position] - seconds[earlier])
                    bias = bias + params["time_bias"][min(128, int(np.floor(np.log(elapsed) / 0.301)))]
                total[head] += silu(query @ key + bias) * value
        total /= model.max_length if model.divisor == "maximum" else position + 1
        out.append(h[position] + linear(params, "outer", norm(total.ravel()) * u[position]))
    return np.stack(out)


_BLOCKS = {"SASRec": sasrec_block, "GSASRec": sasrec_block, "ESASRec": esasrec_block, "HSTU": hstu_block}


def encode_positions(model, params, items, mask):
    params = {name: np.float64(value) for name, value in params.items()}
    result, seconds = np.zeros((*items.shape, model.dim)), seconds_of(mask)
    for row, (session, is_item) in enumerate(zip(items, mask, strict=True)):
        x = params["input_embedding"][session[is_item]] * (np.sqrt(model.dim) if model.scaled else 1)
        x = x + params["positions"][: len(x)]
        for number in range(1, model.blocks + 1):
            prefix = f"block_{number}_"
            own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
            x = _BLOCKS[type(model).__name__](model, own, x, seconds[row, is_item])
        if type(model).__name__ == "HSTU":
            x = x / np.linalg.norm(x, axis=1, keepdims=True) / model.temperature
        else:
            x = np.stack([affine(params, "output_norm", each) for each in x])
        result[row, is_item] = x
    return result


def item_embeddings(model, params):
    table = params["output_embedding" if model.separate else "input_embedding"]
    if type(model).__name__ != "HSTU":
        return table
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)


def weighted_total(model, params, items, mask, weight):
    """The total that the gradient test differentiates."""
    return (weight * encode_positions(model, params, items, mask) * (1 + item_embeddings(model, params)[items])).sum()
