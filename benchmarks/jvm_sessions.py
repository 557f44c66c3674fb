"""Sessions by the JVM library and by the runtime: the same poses, frame by frame.

    python benchmarks/jvm_sessions.py [--count 30] [--frames 25]

Walks through places drawn by code, with frames that show nothing, little, or another part of the place, with and
without odometry. Wants JDK 17 and Maven, and the library built (`make android`). Prints a table, writes
benchmarks/results/jvm_sessions.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from jvm_reader import classpath  # noqa: E402
from scenes import RESULTS  # noqa: E402

from golden.folder import MANIFEST, Folder  # noqa: E402
from golden.manifest import manifest_text  # noqa: E402
from golden.reader import plain_pose, pose_differences, walked  # noqa: E402
from golden.stages import TOLERANCES  # noqa: E402
from hfnet_edge.geometry import Pose  # noqa: E402
from hfnet_edge.map.map_file import LocalizationMap  # noqa: E402
from hfnet_edge.pose.refinement import retract  # noqa: E402
from synthetic import CAMERA, Place, looking_at, place  # noqa: E402

MIDDLE = np.array([30.0, -20.0, 5.0])
KINDS = {"seen": 0.55, "little": 0.15, "nothing": 0.2, "elsewhere": 0.1}
LITTLE = 9  # keypoints, at most


def pose_at(degrees: float) -> Pose:
    """A camera on a circle about the place."""
    angle = np.radians(degrees)
    return looking_at(MIDDLE + np.array([14 * np.cos(angle), 14 * np.sin(angle), 1.0]), MIDDLE)


def frame(p: Place, pose: Pose, kind: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What a frame of a kind shows."""
    features = p.features(pose_at(rng.uniform(120, 240)) if kind == "elsewhere" else pose, outliers=40)
    count = len(features.keypoints)
    rows = np.arange(count - 40, count) if kind == "nothing" else np.arange(count)
    if kind == "little":
        rows = np.sort(rng.permutation(count - 40)[: rng.integers(4, LITTLE + 1)])
    return {
        "keypoints": features.keypoints[rows],
        "descriptors": features.descriptors[rows],
        "global_descriptor": features.global_descriptor,
    }


def session(number: int, p: Place, frames: int) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """How a session is held, its frames, and of which kind these are."""
    rng = np.random.default_rng(number)
    step, drift = rng.uniform(0.5, 4), rng.normal(0, 0.002, 6) * [0.2, 0.2, 0.2, 1, 1, 1]
    poses = [pose_at(step * i) for i in range(frames)]
    kinds = [str(kind) for kind in rng.choice(list(KINDS), frames, p=list(KINDS.values()))]
    told = [retract(poses[0] @ pose.inverse, i * drift) for i, pose in enumerate(poses)]
    blind = rng.random() < 0.2
    shown = [
        {**frame(p, pose, kind, rng), "session_from_cam": None if blind else plain_pose(at)}
        for pose, kind, at in zip(poses, kinds, told, strict=True)
    ]
    odometry = [float(rng.choice([0.005, 0.01, 0.1])), float(rng.choice([0.05, 0.2, 2.0])), float(rng.choice([1, 0.3]))]
    how = {"camera": str(CAMERA), "pixel": float(rng.choice([1.0, 1.25])), "odometry": odometry, "solver": "usac"}
    return {**how, "window": int(rng.integers(1, 12))}, shown, kinds


def stored(folder: Folder, name: str, shown: dict[str, Any]) -> dict[str, Any]:
    """A frame with names of files in place of arrays."""
    return {
        key: folder.array(f"{name}/{key}", value, "session", key) if isinstance(value, np.ndarray) else value
        for key, value in shown.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--output", type=Path, default=RESULTS / "jvm_sessions.json")
    options = parser.parse_args()
    console = Console(width=150)
    folder, kinds, statuses = Folder(), [], Counter[str]()
    for number in track(range(options.count), "sessions"):
        p = place(number, landmarks=400, images=24, offset=tuple(MIDDLE))
        m: LocalizationMap = p.map()
        folder.files[f"{number}.hfmap"] = bytes(m.file.data)
        how, shown, of_frames = session(number, p, options.frames)
        expected = walked(m, frames=shown, **how)
        frames = [stored(folder, f"{number}/{i}", one) for i, one in enumerate(shown)]
        folder.case("session", str(number), {"map": f"{number}.hfmap", **how, "frames": frames}, expected)
        kinds.append(of_frames)
        statuses.update(one["status"] + (", tracked" if one["tracked"] else "") for one in expected["frames"])
    with tempfile.TemporaryDirectory() as root:
        folder.files[MANIFEST] = manifest_text({"arrays": folder.arrays, "cases": folder.cases})
        for name, content in folder.files.items():
            file = Path(root, "golden", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        java = ["java", f"-Dhfnet.root={root}", "-cp", classpath(), "dev.hfnet.edge.Replay"]
        lines = subprocess.run(java, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    assert len(lines) == options.count, f"{len(lines)} sessions"
    apart = []
    for number, (case, line) in enumerate(zip(folder.cases, lines, strict=True)):
        both = zip(json.loads(line)["frames"], case["expected"]["frames"], strict=True)
        for i, (found, expected) in enumerate(both):
            if off := pose_differences(found, expected, TOLERANCES["pose"]):
                apart.append(f"session {number}, frame {i} ({kinds[number][i]}): {', '.join(off)}")
    result = {
        "sessions": options.count,
        "frames": options.count * options.frames,
        "ends": dict(statuses),
        "frames that differ": len(apart),
        "first": apart[:10],
    }
    console.print(result)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
