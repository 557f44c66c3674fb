"""A network: a .tflite file that carries its own description, run by LiteRT.

`ai_edge_litert` is used where it is installed, else `tflite_runtime`, which has the same Interpreter.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np

from hfnet_edge.errors import ModelError
from hfnet_edge.image.keypoints import CELL
from hfnet_edge.networks.description import (
    FINER_ROLES,
    HYPERCOLUMN_ROLE,
    IMAGE,
    LOCAL_ROLE,
    LOCAL_ROLES,
    PATCH_ROLE,
    SCENE_ROLE,
    Description,
    read_description,
)
from hfnet_edge.shell.quiet import quiet
from hfnet_edge.shell.reading import read_bytes
from hfnet_edge.tensor import Output, Tensor

OWN_WIDTH = (*FINER_ROLES, HYPERCOLUMN_ROLE, SCENE_ROLE)  # roles that say themselves how wide they are


class Network:
    """A loaded .tflite file with its description: what `Model` and `hfnet_edge.networks.patches.PatchModel` share.

    Threads may share a network. A call runs in an interpreter that no other call uses meanwhile, and returns arrays of
    its own. The interpreters lie over one copy of the file; there are as many as calls have run at once, but not more
    than cores: further calls wait.

    Args:
        path: a .tflite file that `hfnet-export` wrote.
        threads: of an interpreter. The results do not depend on it.
        content: what the file would hold, where it is not written yet.
        description: the content's, if it has been read already: reading it checks the whole file.

    Raises:
        ModelError: missing, truncated, damaged, not TFLite, without our description, or a network of the other kind;
            also by a call that LiteRT fails in.
    """

    kind = IMAGE  # of `hfnet_edge.networks.description.KINDS`
    batch = 1  # of the interpreter's input

    def __init__(
        self,
        path: Path | str,
        threads: int = 2,
        content: bytes | None = None,
        description: Description | None = None,
    ):
        self.path, self.threads = Path(path), threads
        if not 1 <= threads <= 64:  # LiteRT crashes on absurd numbers
            raise ModelError(f"{threads} threads are not between 1 and 64", "give the number of cores")
        content = read_model(path) if content is None else content
        self.description = description or read_description(content, str(path))
        if self.description.kind != self.kind:
            raise ModelError(
                f"{path} is {self.description.kind} ({self.description.architecture})", f"name {self.kind}"
            )
        self._content = content
        self._slots = Semaphore(os.cpu_count() or 1)
        first = self._open()
        self._idle: deque[_Interpreter] = deque([first])
        self.kernels, self.widths = first.kernels, self._widths(first)

    def run(self, pixels: np.ndarray) -> dict[str, Output]:
        """The network's outputs by role, the batch first.

        Args:
            pixels: (batch, H, W) uint8.

        Raises:
            ModelError: LiteRT fails.
        """
        with self._slots:
            try:
                interpreter = self._idle.pop()  # the one that ran last: its memory is warm
            except IndexError:
                interpreter = self._open()
            try:
                outputs = interpreter.run(self.description.scale(pixels))
            except (RuntimeError, ValueError, MemoryError) as e:  # the interpreter is not used again
                raise ModelError(f"{self.path} failed on an image: {e}", "export it again with `hfnet-export`") from e
            self._idle.append(interpreter)
        return {role: outputs[name] for role, name in self.description.outputs.items()}

    def _open(self) -> _Interpreter:
        """One more interpreter over the file. Raises ModelError."""
        interpreter_class = _interpreter_class()
        h, w = self.description.input_size
        try:
            with quiet():
                interpreter = interpreter_class(model_content=self._content, num_threads=self.threads)
                (given,) = interpreter.get_input_details()
                if given["shape"][0] != self.batch:
                    interpreter.resize_tensor_input(given["index"], (self.batch, *given["shape"][1:]))
                interpreter.allocate_tensors()
            opened = _Interpreter(interpreter)
        except Exception as e:  # the interpreter raises whatever it likes
            raise ModelError(f"{self.path} cannot be run: {e}", "export it again with `hfnet-export`") from e
        if opened.input_shape != (self.batch, h, w, 1):
            raise ModelError(f"{self.path} takes {opened.input_shape}, and says {h}x{w} of itself", "export it again")
        expected = output_shapes(self.description, self.batch, self._widths(opened))
        for role, name in self.description.outputs.items():
            if opened.output_shapes.get(name) != expected[role] or 0 in expected[role]:
                raise ModelError(f"{self.path}: no output of shape {expected[role]} is its {role}", "export it again")
        return opened

    def _widths(self, opened: _Interpreter) -> dict[str, int]:
        """Channels of the outputs whose number the description does not say, by role."""
        outputs = self.description.outputs
        return {role: opened.output_shapes.get(outputs[role], (0,))[-1] for role in OWN_WIDTH if role in outputs}


class _Interpreter:
    """One of LiteRT, of the file's default signature."""

    def __init__(self, interpreter: Any):
        self._runner = interpreter.get_signature_runner()
        ((self._input, given),) = self._runner.get_input_details().items()
        self.input_shape = tuple(int(side) for side in given["shape"])
        given_back = self._runner.get_output_details()
        self.output_shapes = {name: tuple(d["shape"]) for name, d in given_back.items()}
        self._int8 = {name: _quantization(d) for name, d in given_back.items() if d["dtype"] != np.float32}
        nodes = interpreter._get_ops_details()
        # Convolutions that the interpreter handed to XNNPACK; its int8 differs from the builtin one by 2 steps.
        self.kernels = "XNNPACK" if any(node["op_name"] == "DELEGATE" for node in nodes) else "builtin"

    def run(self, image: np.ndarray) -> dict[str, Output]:
        """Outputs by name, copies."""
        outputs: dict[str, Output] = self._runner(**{self._input: image})
        return outputs | {name: Tensor(outputs[name], *how) for name, how in self._int8.items()}  # type: ignore[arg-type]


def _quantization(output: dict[str, Any]) -> tuple[float, int]:
    """Scale and zero point of an output that is not float32. Raises ValueError: it is not int8, or has several."""
    scales, zero_points = (output["quantization_parameters"][key] for key in ("scales", "zero_points"))
    if output["dtype"] != np.int8 or len(scales) != 1 or not (np.isfinite(scales[0]) and scales[0] > 0):
        raise ValueError(f"its output {output['name']} is neither float32 nor int8 of one scale")
    return float(scales[0]), int(zero_points[0])


def output_shapes(
    description: Description, batch: int = 1, own: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """The shape of each role's output, with the batch; also of the roles that this network lacks.

    Args:
        own: channels of the roles `OWN_WIDTH`, which the description does not say; the other local descriptors have
            what the finer ones leave of ``local_dim``.
    """
    height, width = description.input_size
    widths = {**dict.fromkeys(OWN_WIDTH, 0), **(own or {})}
    widths[LOCAL_ROLE] = max(0, description.local_dim - sum(widths[role] for role in FINER_ROLES))
    return {
        "keypoint_logits": (batch, height // CELL, width // CELL, CELL * CELL + 1),
        "keypoint_scores": (batch, height, width),
        **{role: (batch, height // n, width // n, widths[role]) for role, n in LOCAL_ROLES.items()},
        HYPERCOLUMN_ROLE: (batch, height // CELL, width // CELL, widths[HYPERCOLUMN_ROLE]),
        "global_descriptor": (batch, description.global_dim),
        PATCH_ROLE: (batch, description.local_dim),
        SCENE_ROLE: (batch, widths[SCENE_ROLE]),
    }


def description_of(path: Path | str) -> Description:
    """What a model's file says of itself. Raises ModelError."""
    return read_description(read_model(path), str(path))


def read_model(path: Path | str) -> bytes:
    """A model's file. Raises ModelError."""
    try:
        return read_bytes(Path(path))
    except OSError as e:
        raise ModelError(f"cannot read the model {path}: {e.strerror}", "export one with `hfnet-export`") from e


def _interpreter_class():
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as e:
            raise ModelError("no TFLite runtime is installed", "pip install ai-edge-litert") from e
    return Interpreter
