"""Installs the wheel of a folder into a fresh environment, and runs it there, away from the checkout.

    python tests/try_dist.py dist

`make dist` runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

SAMPLE = Path(__file__).parents[1] / "maps" / "samples" / "pq.hfmap"
PACKAGES = ("hfnet_edge", "hfnet_export", "hfnet_maps", "hfnet_parity", "hfnet_device")
RUNTIME = """
import sys
import hfnet_edge
assert all(hasattr(hfnet_edge, name) for name in hfnet_edge.__all__)
assert hfnet_edge.__file__.startswith(sys.prefix), hfnet_edge.__file__
m = hfnet_edge.LocalizationMap.open("pq.hfmap")
m.check_all()
print(f"hfnet_edge {hfnet_edge.__version__} reads {m.image_count} images, {m.landmark_count} landmarks")
"""


def try_wheel(wheel: Path) -> None:
    """Raises CalledProcessError or AssertionError: something does not run."""
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())
    for package in PACKAGES:
        assert f"{package}/py.typed" in names, f"{wheel} has no {package}/py.typed"
    assert not {name for name in names if name.split("/")[0] not in PACKAGES and ".dist-info/" not in name}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        venv.create(root / "env", with_pip=True)
        bin_ = root / "env" / "bin"
        shutil.copy(SAMPLE, root)

        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

        def run(*words: str | Path) -> str:
            done = subprocess.run([*words], cwd=root, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
            return done.stdout

        run(bin_ / "python", "-m", "pip", "install", "--quiet", wheel.resolve())
        print(run(bin_ / "python", "-c", RUNTIME), end="")
        programs = sorted(script.name for script in entry_points(group="console_scripts") if "hfnet-" in script.name)
        assert programs and programs == sorted(path.name for path in bin_.glob("hfnet-*"))
        said = {run(bin_ / program, "--version") for program in programs}
        assert said == {f"hfnet-edge {wheel.name.split('-')[1]}\n"}, said
        print(run(bin_ / "hfnet-map", "verify", "pq.hfmap").splitlines()[0])
        run(bin_ / "hfnet-localize", "--help")


def check_sdist(sdist: Path) -> None:
    """Raises AssertionError: it lacks what a checkout has."""
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    for name in (
        "README.md",
        "LICENSE",
        "pyproject.toml",
        "Makefile",
        "maps/SPEC.md",
        "tests/conftest.py",
        "docs/demo.jpg",
    ):
        assert name in names, f"{sdist} has no {name}"


if __name__ == "__main__":
    dist = Path(sys.argv[1])
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    try_wheel(wheel)
    check_sdist(sdist)
    print(f"{wheel} runs in an environment of its own")
