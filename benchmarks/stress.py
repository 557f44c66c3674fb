"""Queries in the dark, under coloured light, and moved while the shutter was open; the maps are of the clean images.

    python benchmarks/stress.py [--weights runs/x/weights.npz] [--features hfnet rootsift alike]

Castle and herzjesu, five folds pooled. The camera gives a dark image no gain, so it stays dark. What happens before the
shutter closes (light, colour, blur) happens in linear light, then come the sensor's noise, gamma and 8 bits. All
features retrieve with HF-Net's global descriptor of the same stressed image. Prints a table, writes
benchmarks/results/stress.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from localization import THRESHOLDS, ByImage, accuracy_of, build
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import LONGEST, OTHERS, RESULTS, Extractor, Scene, described, exported, hfnet, load_scenes

from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import Description
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.pack.writer import in_file_order, lay_out, to_map

SCENES = ("castle", "herzjesu")
FULL_WELL = 6000.0  # electrons at white, of a small sensor's pixel at base gain
READ_NOISE = 3.0  # electrons, standard deviation

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""From an sRGB image (H, W, 3) uint8 to another."""


def dark(factor: float) -> Change:
    """An exposure of ``factor``, with photon and read noise."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        electrons = rng.poisson(linear(image) * (factor * FULL_WELL)) + rng.normal(0, READ_NOISE, image.shape)
        return gamma(electrons / FULL_WELL)

    return change


def tinted(red: float, green: float, blue: float) -> Change:
    """Light of another colour, as gains in linear light, without white balance."""
    return lambda image, _: gamma(linear(image) * (red, green, blue))


def moved(length: int) -> Change:
    """A straight motion of ``length`` pixels at the longest side 640, in a random direction."""

    def change(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        kernel = line(length * max(image.shape) / LONGEST, rng.uniform(0, np.pi))
        return gamma(cv2.filter2D(linear(image), -1, kernel, borderType=cv2.BORDER_REFLECT_101))

    return change


LEVELS: dict[str, Change] = {
    "clean": lambda image, _: image,
    "1/8 of the light": dark(1 / 8),
    "1/16 of the light": dark(1 / 16),
    "warm": tinted(1.0, 0.5, 0.1),
    "cool": tinted(0.3, 0.6, 1.0),
    "blur 9": moved(9),
    "blur 15": moved(15),
}


def linear(image: np.ndarray) -> np.ndarray:
    """sRGB (uint8) to linear light in [0, 1] (IEC 61966-2-1)."""
    x = image / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def gamma(light: np.ndarray) -> np.ndarray:
    """The inverse of `linear`, clipped."""
    x = np.clip(light, 0, 1)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


def line(length: float, angle: float) -> np.ndarray:
    """A kernel (n, n), n odd, of sum one: points at even distances on a straight line, shared by four pixels each."""
    radius = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    for along in np.linspace(-length / 2, length / 2, 8 * radius):
        x, y = radius + along * np.cos(angle), radius + along * np.sin(angle)
        x0, y0 = int(x), int(y)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            kernel[y0 + dy, x0 + dx] += (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
    return kernel / kernel.sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of HF-Net; default: the bundled ones")
    parser.add_argument("--features", nargs="+", default=["hfnet", *OTHERS], choices=["hfnet", *OTHERS])
    parser.add_argument("--output", type=Path, default=RESULTS / "stress.json")
    options = parser.parse_args()
    console = Console(width=120)
    scenes = [s for s in load_scenes() if s.name in SCENES]
    model = exported(options.weights, "int8")
    extractors = {name: OTHERS[name](hfnet(model)) if name in OTHERS else hfnet(model) for name in options.features}
    result: dict = {"weights": model.description.weights_hash}
    with tempfile.TemporaryDirectory() as folder:
        for level, change in LEVELS.items():
            for s in scenes:
                stress(s, change, Path(folder) / level / s.name)
        for name, extract in extractors.items():
            result[name] = evaluate(name, extract, described(name, model.description), scenes, Path(folder), console)
    report(result, [s.name for s in scenes], console)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def stress(s: Scene, change: Change, folder: Path) -> None:
    """Writes every image of a scene, changed, as PNG."""
    folder.mkdir(parents=True)
    for i, name in enumerate(s.cameras):
        image = cv2.cvtColor(cv2.imread(str(s.images / name)), cv2.COLOR_BGR2RGB)
        changed = change(image, np.random.default_rng(i))
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(changed, cv2.COLOR_RGB2BGR))


def evaluate(
    name: str, extract: Extractor, description: Description, scenes: list[Scene], folder: Path, console: Console
) -> dict:
    """By level and scene, the accuracy; each image is a query in one fold and in the maps of the others."""
    maps: dict[str, LocalizationMap] = {}
    result: dict = {}
    for level in LEVELS:
        result[level] = {}
        for s in scenes:
            features: ByImage = {
                (s.name, image): extract(folder / level / s.name / f"{image}.png", camera)
                for image, camera in track(s.cameras.items(), f"{name}: {level}", console=console, transient=True)
            }
            if level == "clean":
                maps |= {
                    split.name: to_map(lay_out(in_file_order(build(s, split, features, description)[0])))
                    for split in s.splits
                }
            result[level][s.name] = accuracy_of(s, maps, features)
    return result


def report(result: dict, scenes: list[str], console: Console) -> None:
    shown = [i for i, (m, _) in enumerate(THRESHOLDS) if m <= 0.25]
    for scene in scenes:
        table = Table(title=f"{scene}: localized within m, 2°, in %; medians over all queries", title_justify="left")
        table.add_column("queries")
        table.add_column("features")
        for column in (
            *(f"{THRESHOLDS[i][0]:g} m" for i in shown),
            "median m",
            "median °",
            "no pose",
            "median inliers",
        ):
            table.add_column(column, justify="right")
        for level in LEVELS:
            for name in (key for key in result if key != "weights"):
                row = result[name][level][scene]
                table.add_row(
                    level, name, *(f"{100 * row['recall'][i]:.0f}" for i in shown), f"{row['median_m']:.3f}",
                    f"{row['median_deg']:.3f}", str(row["abstained"]), f"{np.median(row['inliers']):.0f}",
                )  # fmt: skip
        console.print(table)


if __name__ == "__main__":
    main()
