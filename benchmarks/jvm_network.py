"""Networks by the JVM library's desktop runtime and by Python's interpreter: the same bits, on the same images.

    python benchmarks/jvm_network.py [NETWORK.tflite ...] [--images FOLDER ...] [--keep FOLDER]

Without networks it exports the bundled HF-Net in int8 and float, and the patch network in int8. `differing` values
have other bits, by `largest` at most where they are float; `rounded` of them differ as the pipeline uses them, of unit
length times 127. What Python returned is kept where --keep says, for the library's own test of it: HFNET_RECORDED.
Wants JDK 17 and Maven. Prints a table, writes benchmarks/results/jvm_network.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.image.patches import cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.networks.description import IMAGE, PATCHES, RETRIEVAL
from hfnet_edge.networks.network import Network
from hfnet_edge.tensor import Tensor
from hfnet_export.export import export_crbnet, export_hfnet
from hfnet_export.networks.weights import BUNDLED_CRBNET

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "android_bridge" / "library"
KINDS = (IMAGE, PATCHES, RETRIEVAL)  # that see images
COLUMNS = ("network", "output", "kernels", "threads", "runs", "values", "differing", "largest", "rounded", "seconds")


def classpath() -> str:
    """Of the desktop module's tests, which it builds."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(
            ["mvn", "-q", "-B", "-f", LIBRARY / "pom.xml", "test-compile", "dependency:build-classpath",
             f"-Dmdep.outputFile={file.name}"],
            check=True,
        )  # fmt: skip
        target = LIBRARY / "desktop" / "target"
        return ":".join([str(target / "classes"), str(target / "test-classes"), Path(file.name).read_text().strip()])


def exported(folder: Path) -> list[Path]:
    """Of the bundled weights."""
    for name, precision in (("hfnet_int8", "int8"), ("hfnet_float", "none")):
        export_hfnet(output=folder / f"{name}.tflite", quantize=precision)
    export_crbnet(BUNDLED_CRBNET, folder / "crbnet_int8.tflite", "int8")
    return [folder / f"{name}.tflite" for name in ("hfnet_int8", "hfnet_float", "crbnet_int8")]


def seen(network: Network, image: Path) -> np.ndarray:
    """What a network is given of an image: (batch, H, W) uint8."""
    if network.description.kind != PATCHES:
        return load_photo(image, network.description.input_size).pixels[None]
    grey = load_photo(image, (480, 640)).image
    block = np.zeros((network.batch, *network.description.input_size), np.uint8)
    patches = cut(grey, detect(grey, network.batch))[: network.batch]
    block[: len(patches)] = patches
    return block


def record(path: Path, images: list[Path], folder: Path) -> dict[str, Any]:
    """Runs a network in Python; returns what is written of it."""
    network = open_network(path)
    if network.description.kind not in KINDS:
        raise SystemExit(f"{path} is {network.description.kind}, which sees no images")
    shutil.copy(path, folder / path.name)
    inputs, seconds = [], []
    for number, image in enumerate(images):
        try:
            pixels = seen(network, image)
        except HFNetEdgeError:  # an image that is there to be refused
            continue
        stem = f"{path.stem}.{number}"
        (folder / f"{stem}.pixels").write_bytes(pixels.tobytes())
        start = time.perf_counter()
        returned = network.run(pixels)
        seconds.append(time.perf_counter() - start)
        outputs = {}
        for role, output in returned.items():
            about = {"scale": output.scale, "zero_point": output.zero_point} if isinstance(output, Tensor) else {}
            values = output.values if isinstance(output, Tensor) else output
            (folder / f"{stem}.{role}").write_bytes(values.tobytes())
            outputs[role] = {"file": f"{stem}.{role}", "dtype": str(values.dtype), **about}
        inputs.append({"pixels": f"{stem}.pixels", "outputs": outputs})
    return {"name": path.stem, "file": path.name, "inputs": inputs, "python": float(np.median(seconds))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", type=Path)
    parser.add_argument("--images", nargs="*", type=Path, default=[ROOT / "golden" / "images"])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "jvm_network.json")
    options = parser.parse_args()
    console = Console(width=150)
    images = sorted(p for folder in options.images for p in folder.rglob("*") if p.suffix in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made) / "recorded"
        folder.mkdir(parents=True, exist_ok=True)
        recorded = [record(path, images, folder) for path in options.networks or exported(Path(made))]
        (folder / "recorded.json").write_text(json.dumps(recorded, indent=1))
        java = subprocess.run(
            ["java", "-cp", classpath(), "dev.hfnet.edge.desktop.RecordedKt", folder],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    python = {one["name"]: one["python"] for one in recorded}
    table = Table(title=f"networks on {len(images)} images: the JVM beside Python", title_justify="left")
    for column in (*COLUMNS, "Python's"):
        table.add_column(column)
    rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in java.stdout.splitlines() if "\t" in line]
    for row in rows:
        row |= {name: int(row[name]) for name in ("threads", "runs", "values", "differing", "rounded")}
        row["largest"] = float(row["largest"])
        row["seconds"] = round(float(row["seconds"]), 4)
        table.add_row(*(str(row[column]) for column in COLUMNS), f"{python[row['network']]:.4f}")
    console.print(table)
    result = {
        "machine": f"{platform.system()} {platform.machine()}",
        "images": len(images),
        "outputs": rows,
        "differing": sum(row["differing"] for row in rows),
        "python seconds, 2 threads": {name: round(seconds, 4) for name, seconds in python.items()},
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"{result['differing']} values differ; wrote {options.output}")


if __name__ == "__main__":
    main()
