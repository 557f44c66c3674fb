"""Builds by processes and by a Dask cluster beside a build by one process: the same map, and what it takes.

    python benchmarks/cluster.py --model hfnet_int8.tflite

The photos of castle (../shared/data/scenes) are built by one process, by two, and by Dask with two and four workers on
this machine. Then a cluster of a scheduler and workers of their own is started as its users do: one of three workers
is killed (SIGKILL) while it matches; and the whole cluster goes away, after which the same command goes on with a new
one. Prints a table, and writes benchmarks/results/cluster.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from resume import build, finished, start
from rich.console import Console
from rich.table import Table
from scenes import RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole, one = build(options.model, folder / "one.hfmap", 1)
        rows["one process"] = one | {"same_map": True}
        for name, jobs, more in (
            ("two processes", 2, ()),
            ("Dask, 2 workers", 1, ("--dask", "local:2")),
            ("Dask, 4 workers", 1, ("--dask", "local:4")),
        ):
            hash_, took = build(options.model, folder / f"{len(rows)}.hfmap", jobs, *more)
            rows[name] = took | {"same_map": hash_ == whole}
        with cluster(3) as (address, workers):
            begin, output = time.perf_counter(), folder / "killed.hfmap"
            process = start(options.model, output, 1, "--dask", address)
            wait_for_pairs(output, 2)
            os.kill(workers[0].pid, signal.SIGKILL)
            hash_, took = finished(process, output, begin)
        rows["a worker of 3 killed"] = took | {"same_map": hash_ == whole}
        output = folder / "gone.hfmap"
        with cluster(2) as (address, _):
            process = start(options.model, output, 1, "--dask", address)
            wait_for_pairs(output, 2)
        code = process.wait(120)
        kept = parts(output)
        with cluster(2) as (address, _):
            hash_, took = build(options.model, output, 1, "--dask", address)
        rows["the cluster gone, then another"] = took | {"same_map": hash_ == whole, "exit_code": code, "kept": kept}
    for row in rows.values():
        row["ratio"] = work(one) / work(row)
    (RESULTS / "cluster.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title="The photos of castle", title_justify="left")
    for name in ("by", "seconds", "extract and match", "one process takes so many times as long", "same map"):
        table.add_column(name)
    for name, row in rows.items():
        same = "yes" if row["same_map"] else "NO"
        table.add_row(name, f"{row['seconds']:.0f}", f"{work(row):.1f}", f"{row['ratio']:.2f}", same)
    Console(width=150).print(table)


def work(row: dict) -> float:
    """Seconds of what others than the first process do."""
    return sum(row["stages"][stage] for stage in ("extract", "match"))


@contextmanager
def cluster(count: int):
    """The address of a scheduler, and its workers' processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = dask("scheduler", "--port", str(port), "--no-dashboard")
    time.sleep(3)
    workers = [dask("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard") for _ in range(count)]
    time.sleep(5)
    try:
        yield address, workers
    finally:
        for process in (scheduler, *workers):
            process.kill()
            process.wait()


def dask(what: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def parts(output: Path) -> int:
    """Files of results in a build's store."""
    return len(list((output.with_name(f"{output.stem}_sfm") / "parts").glob("*.h5")))


def wait_for_pairs(output: Path, count: int) -> None:
    """Until a build has so many parts of pairs; those of features are gathered before."""
    features = output.with_name(f"{output.stem}_sfm") / "features.h5"
    while not features.exists() or parts(output) < count:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
