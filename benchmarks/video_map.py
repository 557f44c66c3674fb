"""A video of the made place, 600 frames of a walk round the square, to a map by one command; queries in that map.

    python benchmarks/video_map.py --model hfnet_int8.tflite [--folder DIR]

The walk is drawn, `hfnet-map build --video walk.mp4 --align walk.txt` is run, where walk.txt is the true trajectory as
a device would write it, and the place's query views, in other light and off the walk, are localized with the camera
that the build found: all of them, and those alone that look across the square, as the walk does. Prints a table, and
writes benchmarks/results/video_map.json. With --folder the video is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS

from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map_cameras import MapCameras
from hfnet_maps.build.reference import read_reference
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.synthetic_town.made_place import MadePlace, made_place
from hfnet_maps.synthetic_town.views import Light, PlaceView, camera_pose

FRAMES, RATE = 600, 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    place = made_place()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        poses = walk(place)
        if not (folder / "walk.mp4").is_file():
            draw(place, poses, folder)
        start = time.perf_counter()
        command = "from hfnet_maps.cli import map_main; map_main()"
        arguments = ("--video", folder / "walk.mp4", "--align", folder / "walk.txt", "--model", options.model)
        output = folder / "walk.hfmap"
        subprocess.run([sys.executable, "-c", command, "build", *map(str, arguments), "-o", str(output)], check=True)
        row = judge(place, poses, output, options.model) | {"build_seconds": time.perf_counter() - start}
    (RESULTS / "video_map.json").write_text(json.dumps(row, indent=1) + "\n")
    table = Table(title="A video to a map", title_justify="left", show_header=False)
    for key, value in row.items():
        table.add_row(key.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else f"{value}")
    Console(width=100).print(table)


def walk(place: MadePlace) -> list[Pose]:
    """A lap round the middle of the square, looking across it, with a hand's tremor."""
    stands = np.array([view.pose.center for view in place.views if not view.is_query])
    half = np.abs(stands[:, :2]).max(axis=0)
    poses = []
    for k in range(FRAMES):
        turn = 2 * np.pi * k / FRAMES
        heading = np.array([np.cos(turn), np.sin(turn)]) * half
        shake = 0.01 * np.array([np.sin(0.9 * k), np.sin(1.3 * k + 1), np.sin(0.7 * k + 2)])
        yaw = np.arctan2(*(-1.4 * heading)[::-1])
        at = np.array([*(0.95 * heading), 1.6 + 0.03 * np.sin(0.6 * k)])
        poses.append(camera_pose(at, yaw + shake[0], 0.05 + shake[1], shake[2]))
    return poses


def draw(place: MadePlace, poses: list[Pose], folder: Path) -> None:
    camera = place.views[0].camera
    part = folder / "part.mp4"
    video = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (camera.width, camera.height))
    lines = []
    for k, pose in enumerate(poses):
        picture = place.render(PlaceView(f"walk_{k:04d}", pose, camera, False, Light()))
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        x, y, z, w = np.roll(pose.inverse.quaternion, -1)
        lines.append(f"{k / RATE:.6f} {' '.join(f'{v:.9f}' for v in pose.center)} {x:.9f} {y:.9f} {z:.9f} {w:.9f}\n")
    video.release()
    (folder / "walk.txt").write_text("".join(lines))
    part.rename(folder / "walk.mp4")


def judge(place: MadePlace, poses: list[Pose], output: Path, model: Path) -> dict:
    map_ = LocalizationMap.open(output)
    localizer, cameras = Localizer(map_, model), MapCameras.beside(output)
    of_frame = {name: poses[int(name.split("_")[1])] for name in map_.image_names}
    reference = read_reference(output.with_name("walk_sfm") / "0")
    off = np.array([pose_error(reference.pose(name), true) for name, true in of_frame.items()])
    errors, across = [], []
    for view in (v for v in place.views if v.is_query):
        picture = place.render(view)
        camera = cameras.of_size(view.camera.width, view.camera.height, view.name)
        pose = localizer.localize(picture, camera, colors="rgb").pose
        errors.append((np.inf, np.inf) if pose is None else pose_error(pose, view.pose))
        to_middle = -view.pose.center[:2] / np.linalg.norm(view.pose.center[:2])
        across.append(bool(view.pose.rotation[2, :2] @ to_middle > 0.5))
    e, seen = np.array(errors), np.array(errors)[across]
    return {
        "frames": FRAMES,
        "keyframes_in_the_map": map_.image_count,
        "keyframes_off_median": float(np.median(off[:, 0])),
        "keyframes_off_most": float(off[:, 0].max()),
        "focal": cameras.cameras[0].focal[0],
        "true_focal": place.views[0].camera.focal[0],
        "queries": len(e),
        "localized": int(np.isfinite(e[:, 0]).sum()),
        "within_2_cm": int((e[:, 0] <= 0.02).sum()),
        "queries_across": len(seen),
        "across_localized": int(np.isfinite(seen[:, 0]).sum()),
        "across_within_2_cm": int((seen[:, 0] <= 0.02).sum()),
        "across_median": float(np.median(seen[:, 0])),
        "across_degrees": float(np.median(seen[:, 1])),
    }


if __name__ == "__main__":
    main()
