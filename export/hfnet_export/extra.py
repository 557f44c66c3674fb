"""Before TensorFlow is imported; imports nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.quiet import quiet


@contextmanager
def export_extra(*more: str) -> Iterator[None]:
    """Around imports of TensorFlow: quiet. ``more`` are other modules of the extra. Raises InstallError: one is not
    installed."""
    needs("export", "tensorflow", "keras", "ai_edge_quantizer", *more)
    with quiet():
        yield


def readers_of(network: Path | str) -> tuple[str, ...]:
    """Modules of the extra, besides TensorFlow, that read a network's file."""
    return ("onnx", "onnxruntime") if Path(network).suffix == ".onnx" else ()
