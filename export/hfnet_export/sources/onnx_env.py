"""onnx2tf, ONNX to TFLite, in an environment of its own: its pins clash with those of everything else here.

The environment is made when it is first needed and kept in the user's cache, as pre-commit does it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hfnet_edge.errors import InstallError, ModelError
from hfnet_edge.shell.cache import ROOM, complete, kept, make_once

PINS = (
    "onnx2tf==1.29.24",
    "tensorflow==2.19.0",
    "tf_keras==2.19.0",
    "numpy==1.26.4",
    "onnx==1.19.1",
    "onnxruntime==1.23.0",
    "ai-edge-litert==2.1.0",
    "protobuf==4.25.5",
    "opencv-python==4.11.0.86",
)
PYTHONS = ((3, 11), (3, 12))  # for which all of them have wheels
NETWORK = (
    "check the network or pip's index and run the same command again; or convert the file elsewhere "
    "with `onnx2tf -i FILE -o FOLDER -osd`, and give FOLDER"
)
KEPT = 400  # characters of what a failed program said


def environment_path() -> Path:
    """Where the environment is, or will be: one for each set of pins and version of Python."""
    return kept("onnx2tf", (*PINS, "{}.{}".format(*_python_version())))


def environment(say: Callable[[str], None] = print) -> Path:
    """The folder of a complete environment, made now if it is not there. One process makes it, others wait.

    Raises:
        InstallError: no suitable Python, pip found no packages, or the disk is full.
    """

    def make(path: Path) -> None:
        say(f"installing {PINS[0]} in {path}, once: 2.6 GB, some minutes")
        _make(path)

    return make_once(environment_path(), make, _usable)


def _usable(path: Path) -> bool:
    return complete(path) and (path / "bin/python").exists()  # its Python may have been uninstalled


def _make(path: Path) -> None:
    done = _run([_python(), "-I", "-m", "venv", str(path)])
    if done.returncode == 0:
        pip = [str(path / "bin/python"), "-I", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-input"]
        done = _run([*pip, "--disable-pip-version-check", *PINS])
    if done.returncode:
        full = "No space left" in done.stdout
        raise InstallError(f"cannot install onnx2tf: {_end(done.stdout)}", ROOM if full else NETWORK)


def convert_onnx(content: bytes, keep_layout: bool, say: Callable[[str], None] = print) -> bytes:
    """Converts a serialised ONNX model with one input, ``image``, of fixed size, to a float32 .tflite.

    Args:
        keep_layout: the image is (1, H, W, 1); else it is (1, 1, H, W) and becomes (1, H, W, 1).

    Raises:
        InstallError: see `environment`. ModelError: onnx2tf fails; the error has the end of what it said.
    """
    path = environment(say)
    with tempfile.TemporaryDirectory() as folder:  # onnx2tf also writes to the working directory
        (Path(folder) / "model.onnx").write_bytes(content)
        # Float only: for int8 and for colour inputs onnx2tf downloads pictures, and its int8 is not ours.
        command = ["-i", "model.onnx", "-o", "out", "-osd", "-n", *(["-kat", "image"] if keep_layout else [])]
        done = _run([str(path / "bin/onnx2tf"), *command], folder, path / "bin")
        result = Path(folder) / "out" / "model_float32.tflite"
        if done.returncode or not result.is_file():
            raise ModelError(
                f"onnx2tf cannot convert the network: {_end(done.stdout)}",
                "export it with opset 17 and simple operators; or as a Keras file or SavedModel",
            )
        return result.read_bytes()


def _run(command: list[str], folder: str | None = None, tools: Path | None = None) -> subprocess.CompletedProcess:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["CUDA_VISIBLE_DEVICES"] = "-1"  # as fast without, and quiet
    if tools:  # onnx2tf starts onnxsim by name
        environ["PATH"] = f"{tools}{os.pathsep}{environ.get('PATH', '')}"
    return subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _end(said: str) -> str:
    """The lines that tell why: those with an error in them, else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() and "github.com" not in line]
    return " ".join((errors or lines)[-3:])[-KEPT:] or "it said nothing"


def _python_version() -> tuple[int, int]:
    return sys.version_info[:2] if sys.version_info[:2] in PYTHONS else PYTHONS[-1]


def _python() -> str:
    """A Python for which the pins have wheels: this one, or one on the PATH. Raises InstallError."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    name = "python{}.{}".format(*_python_version())
    if found := shutil.which(name):
        return found
    raise InstallError(f"onnx2tf does not run on Python {sys.version.split()[0]}", f"install {name}")
