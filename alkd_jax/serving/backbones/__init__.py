"""The backbones that can be shipped, without JAX: a module each, its forward pass in NumPy and as ONNX operators."""

from collections.abc import Mapping

from alkd_jax.serving.backbones import attmix, causal, core, fpmc, gru4rec, late_interaction, narm, srgnn, stamp
from alkd_jax.serving.backbones.shipped_backbone import Arrays, Options, ShippedBackbone

__all__ = ["SHIPPED_BACKBONES", "Arrays", "Options", "ShippedBackbone"]

SHIPPED_BACKBONES: Mapping[str, ShippedBackbone] = {
    "fpmc": fpmc.SHIPPED,
    "stamp": stamp.SHIPPED,
    "attmix": attmix.SHIPPED,
    "late": late_interaction.SHIPPED,
    "gru4rec": gru4rec.SHIPPED,
    "narm": narm.SHIPPED,
    "srgnn": srgnn.SHIPPED,
    "core": core.SHIPPED,
    **causal.SHIPPED,
}
"""Name of a backbone, as in ``alkd_jax.models.BACKBONES`` → how it is shipped."""
