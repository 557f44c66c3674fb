"""This package finds a camera's pose in a mapped place, on the device.

from hfnet_edge import Camera, Localizer
localizer = Localizer("scene.hfmap", "hfnet_int8.tflite")
result = localizer.localize("query.jpg", Camera.parse("PINHOLE 1024 683 919.8 921.8 507.0 335.9"))
"""

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import Localizer, RigFrame
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Method
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.prior import Gps, Prior
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.session import Odometry, Session, SessionPose

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Gps",
    "HFNetEdgeError",
    "LocalizationConfig",
    "LocalizationMap",
    "LocalizationResult",
    "Localizer",
    "Method",
    "Model",
    "Odometry",
    "Pose",
    "PoseConfig",
    "Prior",
    "RigFrame",
    "Session",
    "SessionPose",
    "Status",
    "__version__",
]
