"""Builds from photos that are killed: the same map byte for byte, and what two processes save.

    python benchmarks/resume.py --model hfnet_int8.tflite [--kills 20]

The photos of castle (../shared/data/scenes) are built whole by one process and by two, and then in a build that is
killed (SIGKILL) at random times, 1 to 20 seconds after each start, until it has been killed so often; every other start
has two processes. Prints a table, and writes benchmarks/results/resume.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from scenes import RESULTS, SCENES

COMMAND = "from hfnet_maps.cli import map_main; map_main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, alone = build(options.model, folder / "one.hfmap", 1)
        other, shared = build(options.model, folder / "two.hfmap", 2)
        again, nothing = build(options.model, folder / "one.hfmap", 1)
        output, kills, finished = folder / "killed.hfmap", 0, 0
        while kills < options.kills:
            process = start(options.model, output, 1 + kills % 2)
            try:
                process.wait(rng.uniform(1, 20))
                finished += 1
                hash_ = digest(output)
                assert hash_ == whole, "another map"
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        killed, rest = build(options.model, output, 1)
    row = {
        "photos": len(list((SCENES / "castle" / "images").iterdir())),
        "kills": kills,
        "finished_between": finished,
        "same_bytes_one_two_again_killed": [whole == other, whole == again, whole == killed],
        "one_process": alone,
        "two_processes": shared,
        "built_again": nothing,
        "after_the_kills": rest,
        "ratio_of_extract_and_match": sum(alone["stages"][s] for s in ("extract", "match"))
        / sum(shared["stages"][s] for s in ("extract", "match")),
    }
    (RESULTS / "resume.json").write_text(json.dumps(row, indent=1) + "\n")
    table = Table(title="Builds that were killed", title_justify="left", show_header=False)
    for key, value in row.items():
        table.add_row(key.replace("_", " "), f"{value}")
    Console(width=150).print(table)


def start(model: Path, output: Path, jobs: int, *more: str) -> subprocess.Popen:
    photos = SCENES / "castle" / "images"
    options = ("--images", photos, "--model", model, "-o", output, "--jobs", jobs, *more)
    arguments = [sys.executable, "-c", COMMAND, "build", *map(str, options)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def build(model: Path, output: Path, jobs: int, *more: str) -> tuple[str, dict]:
    """The hash of a map that is built to its end, seconds in all and by stage."""
    begin = time.perf_counter()
    return finished(start(model, output, jobs, *more), output, begin)


def finished(process: subprocess.Popen, output: Path, begin: float) -> tuple[str, dict]:
    """The same of a build that runs."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    text = " ".join(part.strip(" │\n") for part in said[said.index("seconds") :].splitlines())
    stages = {name: float(seconds) for name, seconds in re.findall(r"(extract|match|sfm) +([0-9.]+)", text)[:3]}
    return digest(output), {"seconds": time.perf_counter() - begin, "stages": stages}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
