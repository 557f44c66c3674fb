"""What a network runs on before it is exported: the fastest processor here, always in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

# A reference is float32: recent GPUs else round the factors of its products to TF32's 10 bits.
tf.config.experimental.enable_tensor_float_32_execution(False)
ONNX_GPUS: dict[str, dict[str, int]] = {
    "CUDAExecutionProvider": {"use_tf32": 0},
    "ROCMExecutionProvider": {},
    "DmlExecutionProvider": {},
}


def tensorflow_processor() -> str:
    """Where TensorFlow puts a network when nobody says where."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU, TensorFlow"
    return f"GPU, TensorFlow {tf.config.experimental.get_device_details(gpus[0]).get('device_name', '')}".rstrip()


def onnx_session(path: Path | str, onnxruntime: Any) -> tuple[Any, str]:
    """The model on the fastest processor that this ONNX Runtime has, and its name. A GPU that is listed but cannot be
    used falls back to the CPU without a word, so the session is asked."""
    listed = onnxruntime.get_available_providers()
    available = [(provider, options) for provider, options in ONNX_GPUS.items() if provider in listed]
    session = onnxruntime.InferenceSession(path, providers=[*available, ("CPUExecutionProvider", {})])
    used = session.get_providers()[0]
    return session, f"{'GPU' if used in ONNX_GPUS else 'CPU'}, ONNX Runtime {used.removesuffix('ExecutionProvider')}"
