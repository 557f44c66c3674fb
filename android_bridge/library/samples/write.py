"""Writes this folder: a small patch network in float and int8, patches, and what the Python runtime makes of them.

    PYTHONPATH=tests python android_bridge/library/samples/write.py

The library's tests read it. Weights are random; a network of ours would be too large for the repository.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from hfnet_edge.networks.patches import PatchModel
from small_crbnet import CONFIG, make_small_crbnet

FOLDER = Path(__file__).parent
COUNT = 130  # patches: more than a block of 128


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make_small_crbnet(Path(folder))
        step = len(made.patches) // COUNT
        patches = np.ascontiguousarray(made.patches[::step][:COUNT])
        (FOLDER / "patches.bin").write_bytes(patches.tobytes())
        for name, model in (("float", made.float_model), ("int8", made.int8_model)):
            shutil.copy(model, FOLDER / f"{name}.tflite")
            network = PatchModel(model)
            assert network.kernels == "XNNPACK", network.kernels
            (FOLDER / f"{name}_vectors.bin").write_bytes(network.raw(patches).astype("<f4").tobytes())
            (FOLDER / f"{name}_descriptors.bin").write_bytes(network(patches).tobytes())
    about = {"patches": len(patches), "dim": CONFIG.dim, "weights_hash": network.description.weights_hash}
    (FOLDER / "samples.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
