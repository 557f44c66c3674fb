"""HF-Net from weights of `hfnet-distill`, to be exported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hfnet_edge.networks.description import BLOBS, GLOBAL_ROLE, HYPERCOLUMN_ROLE, LOCAL_ROLES, Description
from hfnet_export.networks import processors
from hfnet_export.networks.any_hfnet import NMS_RADIUS, AnyHFNet, check_values
from hfnet_export.networks.hfnet import INPUT_RANGE, HFNetConfig
from hfnet_export.networks.weights import BUNDLED, fold_pca, hfnet_from_weights, load_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.calibration import photos
from hfnet_export.tflite.embed import toolchain
from hfnet_export.trained import Converted, Say

MAX_REFERENCES = 1000  # photos that a PCA is learnt from


@dataclass(frozen=True)
class TrainedHFNet(AnyHFNet):
    """A `hfnet_export.trained.TrainedNetwork`.

    Attributes:
        global_dim: dimensions of the global descriptor to keep, the most important first; None: all.
        references: folder of photos, more than ``global_dim``, whose PCA decides these dimensions.
    """

    global_dim: int | None = None
    references: Path | None = None

    def convert(self, say: Say) -> Converted:
        config, _, _ = load_weights(self.path)
        config = replace(config, global_dim=config.global_dim if self.global_dim is None else self.global_dim)
        origin = "bundled weights" if self.path == BUNDLED else str(self.path)
        say(1, f"building HF-Net from {origin} ({config.local_dim}-D local, {config.global_dim}-D global)")
        network, weights_hash = hfnet_from_weights(self.path, self.input_size, config.global_dim, batch=1)
        if self.references is not None:
            weights_hash = fold_pca(network, self.path, photos(self.references, self.input_size, MAX_REFERENCES))
        parameters = convert.parameter_count(network)
        self.say_converting(say, parameters)
        return Converted(
            convert.to_float_tflite(network),
            describe(config, weights_hash, "none", self.input_size),
            parameters,
            lambda image: network(image, training=False),
            processors.tensorflow_processor(),
            check=check_values,
        )


def describe(config: HFNetConfig, weights_hash: str, precision: str, input_size: tuple[int, int]) -> Description:
    """The description of an HF-Net of this configuration, with the versions of the tools at hand."""
    return Description(
        architecture=f"hfnet-mobilenetv2-{config.width}",
        weights_hash=weights_hash,
        precision=precision,
        input_size=input_size,
        input_range=INPUT_RANGE,
        local_dim=config.local_dim,
        global_dim=config.global_dim,
        nms_radius=NMS_RADIUS,
        outputs={role: role for role in ("keypoint_logits", *LOCAL_ROLES, HYPERCOLUMN_ROLE, GLOBAL_ROLE)},
        toolchain=toolchain(),
        detector=BLOBS,
    )
