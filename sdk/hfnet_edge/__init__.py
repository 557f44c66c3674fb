"""Visual localization on the device.

from hfnet_edge import Camera, Localizer
localizer = Localizer("scene.hfmap", "hfnet_int8.tflite")
result = localizer.localize("query.jpg", Camera.parse("PINHOLE 1024 683 919.8 921.8 507.0 335.9"))
"""

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import LocalizationResult, Localizer, Status
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.model import Model

__all__ = [
    "Camera",
    "HFNetEdgeError",
    "LocalizationMap",
    "LocalizationResult",
    "Localizer",
    "Model",
    "Pose",
    "Status",
]
