"""A robot's loop: the camera's thread hands frames over and is never blocked; where the robot is comes back beside it.

    python examples/robot_loop.py --map demo/place.hfmap --model demo/hfnet_int8.tflite --video walk.mp4 \
        --odometry tum.txt --camera "PINHOLE 640 480 554.3 554.3 322.75 238.5"

The video plays the camera at its own speed; frames that come while one is localized are dropped, the latest is kept. A
robot would take frames from its driver and the motion from its wheels or its visual odometry.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import Localizer
from hfnet_edge.session import Session, SessionPose
from hfnet_edge.video import Trajectory, frames_of


class Robot:
    """Knows where it is at any moment: what the session said last, moved by the odometry since."""

    def __init__(self) -> None:
        self.map_from_session: Pose | None = None
        self.fixes = 0

    def on_pose(self, found: SessionPose | HFNetEdgeError) -> None:
        """Called beside the camera's thread."""
        if isinstance(found, HFNetEdgeError):
            print(f"a frame failed: {found}")
        elif found.map_from_session is not None:
            self.map_from_session = found.map_from_session  # one assignment: the other thread sees the old or the new
            self.fixes += 1

    def position(self, session_from_cam: Pose) -> str:
        """In the map, for people."""
        if self.map_from_session is None:
            return "somewhere"
        x, y, z = (self.map_from_session @ session_from_cam).translation
        return f"at {x:.2f} {y:.2f} {z:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("map", "model", "video", "odometry"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--camera", required=True, help='as "PINHOLE width height fx fy cx cy"')
    options = parser.parse_args()
    camera, motion = Camera.parse(options.camera), Trajectory.read(options.odometry)
    robot, frames, slowest = Robot(), 0, 0.0
    with Session(Localizer(options.map, options.model), on_pose=robot.on_pose) as session:
        start = time.monotonic()
        for at, frame in frames_of(options.video):
            time.sleep(max(0.0, start + at - time.monotonic()))  # as a camera would
            session_from_cam = motion.at(float(motion.times[0]) + at)
            if session_from_cam is None:
                continue
            handed = time.monotonic()
            session.submit(frame, camera, session_from_cam, colors="bgr")
            slowest, frames = max(slowest, time.monotonic() - handed), frames + 1
            if frames % 10 == 1:
                print(f"{at:6.2f} s: {robot.position(session_from_cam)}")
    print(f"{frames} frames, {robot.fixes} localized; the camera waited {1e3 * slowest:.1f} ms at most")


if __name__ == "__main__":
    main()
