"""Damaged maps by the reader of the JVM library and by the runtime's: the same verdict, mutant by mutant.

    python benchmarks/jvm_reader.py [--count 20000]

The mutants are those of tests/attacks/test_map_fuzz.py, with and without right checksums. Wants JDK 17 and Maven, and
the library built (`make android`). Prints a table, writes benchmarks/results/jvm_reader.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from scenes import RESULTS  # noqa: E402

from attacks.test_map_fuzz import mutant  # noqa: E402
from hfnet_edge.errors import MapFormatError  # noqa: E402
from hfnet_edge.map.map_file import LocalizationMap  # noqa: E402
from hfnet_edge.map.place_index import is_index, read_tiles  # noqa: E402

LIBRARY = ROOT / "android_bridge" / "library"
CORE = LIBRARY / "core" / "target"


def classpath() -> str:
    """Of the library's tests, which print verdicts."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(
            ["mvn", "-q", "-B", "-f", LIBRARY / "pom.xml", "-pl", "core", "dependency:build-classpath",
             f"-Dmdep.outputFile={file.name}"],
            check=True,
        )  # fmt: skip
        return ":".join([str(CORE / "classes"), str(CORE / "test-classes"), Path(file.name).read_text().strip()])


def verdict(content: bytes) -> str:
    try:
        map_ = LocalizationMap.read(content)
        map_.check_all()
        if is_index(map_):
            read_tiles(map_)
    except MapFormatError:
        return "refused"
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=RESULTS / "jvm_reader.json")
    options = parser.parse_args()
    console = Console(width=150)
    java = subprocess.Popen(
        ["java", "-Xmx512m", "-cp", classpath(), "dev.hfnet.edge.VerdictsKt"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    ours, kinds = [], []
    assert java.stdin is not None
    for number in track(range(options.count), "mutants"):
        content, kind, sealed = mutant(number)
        java.stdin.write(len(content).to_bytes(4, "big") + content)
        ours.append(verdict(content))
        kinds.append(f"{kind}, {'right' if sealed else 'wrong'} checksums")
    theirs = java.communicate()[0].decode().split()
    assert len(theirs) == len(ours), f"{len(theirs)} verdicts of {len(ours)}"
    typed = {"ok": "ok", "MapFormatException": "refused", "MapVersionException": "refused"}
    foreign = Counter(v for v in theirs if v not in typed)
    apart = [n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != typed.get(b, b)]
    result = {
        "mutants": options.count,
        "accepted": ours.count("ok"),
        "disagreements": len(apart),
        "first": apart[:10],
        "other exceptions": dict(foreign),
        "by kind": dict(Counter(kinds)),
    }
    console.print(result)
    for n in apart[:10]:
        console.print(n, kinds[n], ours[n], theirs[n])
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
