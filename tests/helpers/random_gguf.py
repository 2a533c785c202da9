"""Writes a tiny language model of random weights, one token a byte, as a GGUF file."""

import numpy as np

_WIDTH, _HEADS, _LAYERS, _INNER = 32, 2, 1, 64
_SPECIAL = ("<unk>", "<s>", "</s>")
_CHAT = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + _CHAT
)
"""A chat template that refuses system messages, in the words of a well-known model's."""


def write_model(path, *, context=8192, chat=_CHAT, seed=0):
    """Writes the model; it prefers digits, quotation marks and commas, so that its lists have some length."""
    import gguf

    rng = np.random.default_rng(seed)
    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("random")
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat)
    for name, weights in _weights(rng, len(tokens)):
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(rng, size):
    """Yields the name and the weights of each tensor."""
    embedding = rng.normal(size=(size, _WIDTH))
    embedding[:, 0] = 8.0  # Equal for all tokens, so that column 0 of the output is a bias.
    output = rng.normal(size=(size, _WIDTH)) * 0.1
    output[:, 0] = 0.0
    for byte, bias in {b"]": -2.5, b" ": -2.5, b"\n": -2.5, b"\t": -2.5}.items():
        output[len(_SPECIAL) + byte[0], 0] = bias
    yield "token_embd.weight", embedding
    yield "output_norm.weight", np.ones(_WIDTH)
    yield "output.weight", output
    for layer in range(_LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{part}.weight", rng.normal(size=(_WIDTH, _WIDTH)) / _WIDTH**0.5
        inner = {"ffn_gate": (_INNER, _WIDTH), "ffn_up": (_INNER, _WIDTH), "ffn_down": (_WIDTH, _INNER)}
        for part, shape in inner.items():
            yield f"blk.{layer}.{part}.weight", rng.normal(size=shape) / shape[1] ** 0.5
        for part in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{part}.weight", np.ones(_WIDTH)
