"""What choosing costs: judged score of packed maps and CPU time of `choose` by budget, also of another checkout.

    python benchmarks/packing.py [--scenes castle demo] [--budgets 60kB 200kB 1MB] [--before CHECKOUT]

Each choice is made in a process of its own, with all threads that it takes by itself; time is user CPU time, without
imports and reading. Queries of the scenes are not looked at. Writes benchmarks/results/packing.json after each choice.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scenes import RESULTS, SCENES, exported

from hfnet_edge.shell.lists import read_names
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import build_map
from hfnet_maps.cli import parse_size
from hfnet_maps.pack.writer import full_sections, write_map
from hfnet_maps.synthetic_town.made_place import write_place

PACKAGES = ("sdk", "export", "maps", "parity", "android_bridge")
HERE = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=["castle", "herzjesu", "reichstag", "demo"])
    parser.add_argument("--budgets", nargs="+", default=["60kB", "200kB", "1MB"])
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--maps", type=Path, help="folder with SCENE.hfmap, where they are built already")
    parser.add_argument("--output", type=Path, default=RESULTS / "packing.json")
    options = parser.parse_args()
    checkouts = {"after": HERE} | ({"before": options.before} if options.before else {})
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in options.scenes:
            path = (options.maps or build(scene, Path(folder))) / f"{scene}.hfmap"
            for text in options.budgets:
                row: dict = {"scene": scene, "budget": parse_size(text)}
                for name, root in checkouts.items():
                    row[name] = chosen_by(root, path, row["budget"])
                rows.append(row)
                print(json.dumps(row), file=sys.stderr)
                options.output.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title="left-out reference images: judged score, user CPU seconds", title_justify="left")
    for heading in ("scene", "kB", *(f"{name} {figure}" for name in checkouts for figure in ("score", "s")), "times"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = [f for name in checkouts for f in (f"{row[name]['score']:.4f}", f"{row[name]['seconds']:.1f}")]
        times = f"{row['before']['seconds'] / row['after']['seconds']:.1f}" if "before" in row else ""
        table.add_row(row["scene"], f"{row['budget'] / 1e3:g}", *figures, times)
    Console(width=110).print(table)
    print(f"wrote {options.output}")


def build(scene: str, folder: Path) -> Path:
    """Writes SCENE.hfmap of all reference images of the default split, and returns its folder."""
    model = exported(BUNDLED, "int8")
    root = SCENES / scene
    if scene == "demo":
        root = folder / "demo"
        write_place(root)
    names = read_names(root / "map.txt")
    source, _ = build_map(root / "images", root / "reference", names, model)
    write_map(full_sections(source), folder / f"{scene}.hfmap")
    return folder


def chosen_by(root: Path, path: Path, budget: int) -> dict:
    """Settings, size, score and seconds of the choice of a checkout."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(root / package) for package in PACKAGES)}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    command = [sys.executable, __file__, "--choose", str(path), str(budget)]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def choose_here(path: str, budget: int) -> None:
    """Prints the choice of the checkout that is imported."""
    from hfnet_maps.content import read_content
    from hfnet_maps.pack.budget import choose

    source = read_content(path)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    _, (chosen, *_) = choose(source, budget)
    seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - start
    found = {"settings": str(chosen.settings), "landmarks": chosen.landmarks, "bytes": chosen.size}
    print(json.dumps(found | {"score": round(chosen.score, 4), "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--choose"]:
        choose_here(sys.argv[2], int(sys.argv[3]))
    else:
        main()
