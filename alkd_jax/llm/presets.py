"""Servers and providers by name: their base URL, the variable of their API key, and what they are known to take.

A preset is given as a base URL: `gemini:`, or `vllm:http://gpu1:8000/v1` with another address.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is known of a server.

    Attributes:
        base_url: as the SDK takes it.
        api_key_env: environment variable with the API key.
        structured: how requests ask for JSON.
        max_tokens_field: name of the field that bounds an answer's tokens.
        takes_seed: whether requests may have a seed.
        is_own: whether it is a server of the user's own, which costs nothing on this machine.
    """

    base_url: str
    api_key_env: str
    structured: str = "json_schema"
    max_tokens_field: str = "max_tokens"
    takes_seed: bool = True
    is_own: bool = False


OPENAI = Preset("https://api.openai.com/v1", "OPENAI_API_KEY", max_tokens_field="max_completion_tokens")
PRESETS: Mapping[str, Preset] = {
    "openai": OPENAI,
    "openrouter": Preset("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "gemini": Preset("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", takes_seed=False),
    "deepseek": Preset("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", structured="json_object", takes_seed=False),
    "ollama": Preset("http://localhost:11434/v1", "OLLAMA_API_KEY", is_own=True),
    "vllm": Preset("http://localhost:8000/v1", "VLLM_API_KEY", is_own=True),
    "llamacpp": Preset("http://localhost:8080/v1", "LLAMA_API_KEY", is_own=True),
    "litellm": Preset("http://localhost:4000/v1", "LITELLM_API_KEY", max_tokens_field="max_completion_tokens"),
}


def resolve(base_url: str) -> Preset:
    """Returns the server that a base URL or the name of a preset stands for.

    Args:
        base_url: an address; or a name and a colon, which another address may follow.

    Raises:
        ValueError: it begins with a name that is none of the presets.
    """
    name, colon, address = base_url.partition(":")
    if name in PRESETS and colon:
        preset = PRESETS[name]
        return dataclasses.replace(preset, base_url=address) if address else preset
    if name not in ("http", "https") and not address.startswith("//"):
        known = ", ".join(f"{name}:" for name in PRESETS)
        raise ValueError(f"base_url is not a web address; expected http://HOST/… or https://HOST/…, or one of {known}")
    return dataclasses.replace(OPENAI, base_url=base_url)
