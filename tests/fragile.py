"""The bundled network, made to fail int8 in one place without changing what it computes in float."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hfnet_export.networks.hfnet import HFNetConfig
from hfnet_export.networks.weights import BUNDLED, load_weights

HUGE = 1024.0  # a power of two: the float network stays the same to the last bits
# In the names of the operators that write and read the huge channel.
GUILTY = ("/b0.proj_", "/b1.exp_", "/local_descriptors_half.conv_")


def write_fragile_weights(path: Path) -> HFNetConfig:
    """Scales one channel between b0 and b1, which no shortcut passes, up, and its consumers' weights down."""
    config, arrays, card = load_weights(BUNDLED)
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    channel = int(np.argmax(arrays["b0.proj.bn/gamma"]))
    for name in ("b0.proj.bn/gamma", "b0.proj.bn/beta"):
        arrays[name][channel] *= HUGE
    for name in ("b1.exp/kernel", "local_descriptors_half.conv/kernel"):
        arrays[name][:, :, channel] /= HUGE
    about = json.dumps({"network": config.as_dict(), "card": card}).encode()
    np.savez(path, __about__=np.frombuffer(about, np.uint8), **arrays)
    return config
