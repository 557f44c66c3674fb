"""This package finds a camera's pose in a mapped place, on the device.

from hfnet_edge import Camera, Localizer
localizer = Localizer("scene.hfmap", "hfnet_int8.tflite")
result = localizer.localize("query.jpg", Camera.parse("PINHOLE 1024 683 919.8 921.8 507.0 335.9"))
"""

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Method
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.result import LocalizationResult, Status

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "HFNetEdgeError",
    "LocalizationConfig",
    "LocalizationMap",
    "LocalizationResult",
    "Localizer",
    "Method",
    "Model",
    "Pose",
    "PoseConfig",
    "Status",
    "__version__",
]
