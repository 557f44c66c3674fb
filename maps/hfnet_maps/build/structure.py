"""Structure from motion: cameras and poses of photos from their verified matches, by COLMAP's mappers.

    matches ─> two-view geometry ─> COLMAP's mapper ─> models ─> one robust adjustment of each ─> upright

COLMAP's thresholds are pixels. It is given photos at the size of the network's pixels, so that they suit photos of all
sizes, and the models are scaled back at the end. Everything runs on one thread with one seed: the same photos give the
same models, bit by bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pycolmap

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.joining import join_models
from hfnet_maps.build.pairs import MIN_MATCHES, SEED
from hfnet_maps.build.photos import Device, Photos
from hfnet_maps.build.triangulation import make_robust, pose_of, rigid
from hfnet_maps.evaluation.ground_plane import upright

TRIALS = 1000  # of a two-view geometry, at most
LEAST_SHARE = 0.25  # of a pair's matches that fit its geometry: chance alone reaches a fifth
LEAST_MODEL = 3  # photos
OWN_CENTER = 10  # photos of a device, from which its principal point and second distortion are told
OFF_CENTER = 0.03  # of the longer side, that a principal point is off the middle at most
OFF_FOCAL = 0.1  # of EXIF's focal length, that an adjusted one is off at most
STEPS = 100  # of the last adjustment


def _turn(x: tuple[int, int], y: tuple[int, int]) -> Pose:
    """To a camera whose right and down are these (right, down) of the stored pixels."""
    return Pose.from_matrix(np.array([[*x, 0], [*y, 0], [0, 0, 1.0]]), np.zeros(3))


HELD = {o: _turn((1, 0), (0, 1)) for o in range(1, 9)} | {
    3: _turn((-1, 0), (0, -1)),
    6: _turn((0, -1), (1, 0)),
    8: _turn((0, 1), (-1, 0)),
}
"""From the camera of the stored pixels to the one that was held upright, by EXIF's orientation."""

Geometries = dict[tuple[int, int], pycolmap.TwoViewGeometry]


@dataclass(frozen=True)
class SfmModel:
    """Photos that one reconstruction has registered, upright: z points up, the cameras' middle is the origin.

    Attributes:
        reconstruction: COLMAP's, in pixels of the photos; image i + 1 is photo i.
        poses: cam_from_world by row of the photos, ascending.
        cameras: by row of the devices.
    """

    reconstruction: pycolmap.Reconstruction
    poses: dict[int, Pose]
    cameras: dict[int, Camera]


def verify_geometry(
    a: pycolmap.Camera, b: pycolmap.Camera, xy_a: np.ndarray, xy_b: np.ndarray, matches: np.ndarray
) -> pycolmap.TwoViewGeometry | None:
    """The geometry that most matches of two photos fit; None where too few do.

    Args:
        a, b: of the network's size. xy_a, xy_b: keypoints in their pixels. matches: (P, 2) rows of them.
    """
    if len(matches) < MIN_MATCHES:
        return None
    options = pycolmap.TwoViewGeometryOptions(min_num_inliers=MIN_MATCHES)
    options.ransac.max_num_trials, options.ransac.random_seed = TRIALS, SEED
    found = pycolmap.estimate_two_view_geometry(a, xy_a, b, xy_b, matches.astype(np.uint32), options)
    enough = max(MIN_MATCHES, LEAST_SHARE * len(matches))
    return found if len(found.inlier_matches) >= enough else None


def network_camera(device: Device, pixel: float) -> pycolmap.Camera:
    """A device's camera at the network's size. Args: pixel: `Features.pixel` of its photos."""
    c = device.camera
    camera = pycolmap.Camera(
        model=c.model,
        width=round(c.width / pixel),
        height=round(c.height / pixel),
        params=[c.params[0] / pixel, c.params[1] / pixel, c.params[2] / pixel, 0.0],
    )
    camera.has_prior_focal_length = device.from_exif
    return camera


def _network_cameras(photos: Photos, features: Sequence[Features]) -> tuple[list[pycolmap.Camera], list[float]]:
    """Each device's camera at the network's size, and pixels of its photos in one of the network's."""
    cameras, pixels = [], []
    for k, device in enumerate(photos.devices):
        of_device = [f.pixel for f, of in zip(features, photos.device_of, strict=True) if of == k]
        pixels.append(float(np.median(of_device)) if of_device else 1.0)
        cameras.append(network_camera(device, pixels[-1]))
        cameras[-1].camera_id = k + 1
    return cameras, pixels


def reconstruct(
    photos: Photos,
    features: Sequence[Features],
    geometries: Geometries,
    mapper: Mapper = Mapper.INCREMENTAL,
    progress: Report = silent,
) -> list[SfmModel]:
    """Models of the photos, the one of most photos first. Each has photos that no larger one has."""
    cameras, pixels = _network_cameras(photos, features)
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, pycolmap.logging.FATAL
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "database.db" if mapper is Mapper.GLOBAL else ":memory:"
            database = pycolmap.Database.open(path)
            _fill(database, photos, features, geometries, cameras, pixels)
            if mapper is Mapper.GLOBAL:
                database.close()
                found = _global(Path(path), len(photos.names), progress)
            else:
                known = {camera.camera_id for camera in cameras if camera.has_prior_focal_length}
                found = _incremental(database, len(photos.names), known, progress)
        models, taken = [], set[int]()
        for model in sorted(
            join_models(found, geometries), key=lambda m: (-m.num_reg_images(), min(m.reg_image_ids()))
        ):
            registered = set(model.reg_image_ids())
            if len(registered) < min(LEAST_MODEL, len(photos.names)) or len(registered - taken) < len(registered) / 2:
                continue
            taken |= registered
            model = _adjust(model)
            _scale_back(model, photos, pixels)
            models.append(_stood_up(model, photos))
    finally:
        pycolmap.logging.minloglevel = level
    return models


def _fill(
    database: pycolmap.Database,
    photos: Photos,
    features: Sequence[Features],
    geometries: Geometries,
    cameras: Sequence[pycolmap.Camera],
    pixels: Sequence[float],
) -> None:
    """Fills COLMAP's database, with a rig of its own for each device and a frame for each photo."""
    with pycolmap.DatabaseTransaction(database):
        for camera in cameras:
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera.camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        for i, (name, of, f) in enumerate(zip(photos.names, photos.device_of, features, strict=True), 1):
            image = pycolmap.Image(name=name, camera_id=of + 1, image_id=i)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=i, rig_id=of + 1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(i, (f.keypoints / pixels[of]).astype(np.float32).reshape(-1, 2))
        for (i, j), geometry in geometries.items():
            database.write_matches(i + 1, j + 1, geometry.inlier_matches)
            database.write_two_view_geometry(i + 1, j + 1, geometry)


def _incremental(
    database: pycolmap.Database, count: int, known: set[int], progress: Report
) -> list[pycolmap.Reconstruction]:
    options = pycolmap.IncrementalPipelineOptions(
        min_model_size=min(LEAST_MODEL, count), random_seed=SEED, num_threads=1, extract_colors=False
    )
    options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.mapper.num_threads = 1
    options.constant_cameras = known  # until all photos stand: along a street focal length and depth are nearly one
    options.mapper.constant_cameras = known
    done = 0

    def next_image() -> None:
        nonlocal done
        done = min(done + 1, count)
        progress("sfm", done, count)

    manager = pycolmap.ReconstructionManager()
    pipeline = pycolmap.IncrementalPipeline(options, database, manager)
    for event in (
        pycolmap.IncrementalPipelineCallback.INITIAL_IMAGE_PAIR_REG_CALLBACK,
        pycolmap.IncrementalPipelineCallback.NEXT_IMAGE_REG_CALLBACK,
    ):
        pipeline.add_callback(event, next_image)
    pipeline.run()
    progress("sfm", count, count)
    return [manager.get(k) for k in range(manager.size())]


def _global(path: Path, count: int, progress: Report) -> list[pycolmap.Reconstruction]:
    progress("sfm", 0, count)
    pycolmap.calibrate_view_graph(path)
    options = pycolmap.GlobalPipelineOptions(min_model_size=min(LEAST_MODEL, count), random_seed=SEED, num_threads=1)
    options.mapper.random_seed = SEED
    options.mapper.num_threads = 1
    with TemporaryDirectory() as folder:
        found = pycolmap.global_mapping(path, folder, folder, options)
    progress("sfm", count, count)
    return list(found.values())


def _adjust(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """The model after a bundle adjustment of everything by a robust loss.

    Devices of many photos get their principal point and a second coefficient of distortion, which would lead astray
    while few photos stand. Where these then leave what lenses have (along a straight street they can), and for devices
    of few photos, the intrinsics stay as they are.
    """
    count = dict[int, int]()
    for i in model.reg_image_ids():
        count[model.image(i).camera_id] = count.get(model.image(i).camera_id, 0) + 1
    fixed = {camera_id for camera_id in model.cameras if count.get(camera_id, 0) < OWN_CENTER}
    while True:
        adjusted = copy.deepcopy(model)
        _adjust_all(adjusted, fixed)
        odd = {k for k in model.cameras if k not in fixed and not _plausible(adjusted.camera(k), model.camera(k))}
        if not odd:
            return adjusted
        fixed |= odd


def _plausible(camera: pycolmap.Camera, before: pycolmap.Camera) -> bool:
    """Whether an adjusted camera is near the middle of its photos, and near a focal length of EXIF's."""
    longer = max(camera.width, camera.height)
    middle = np.array([camera.width, camera.height]) / 2
    aside = np.abs([camera.principal_point_x, camera.principal_point_y] - middle).max()
    known = before.has_prior_focal_length
    return aside < OFF_CENTER * longer and not (
        known and abs(camera.focal_length_x / before.focal_length_x - 1) > OFF_FOCAL
    )


def with_cameras(model: SfmModel, cameras: Mapping[int, Camera], pixel: float) -> SfmModel:
    """The model adjusted to given cameras. Args: cameras: by row of the devices. pixel: `Features.pixel`."""
    adjusted = copy.deepcopy(model.reconstruction)
    for camera_id, camera in adjusted.cameras.items():
        given = cameras[camera_id - 1]
        camera.model = getattr(pycolmap.CameraModelId, given.model)
        camera.params = list(given.params)
    _adjust_all(adjusted, set(adjusted.cameras), pixel)
    return transformed(adjusted, 1.0, np.eye(3), np.zeros(3))


def posed_model(photos: Photos, poses: Mapping[int, Pose], cameras: Mapping[int, Camera]) -> SfmModel:
    """A model of poses and cameras alone, without points, upright."""
    model = pycolmap.Reconstruction()
    for device, camera in cameras.items():
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=device + 1,
                model=camera.model,
                width=camera.width,
                height=camera.height,
                params=list(camera.params),
            )
        )
    for i, pose in poses.items():
        image = pycolmap.Image(name=photos.names[i], camera_id=photos.device_of[i] + 1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, rigid(pose))
    return _stood_up(model, photos)


def _adjust_all(model: pycolmap.Reconstruction, fixed: set[int], pixel: float = 1.0) -> None:
    """Adjusts poses, points, and the intrinsics of cameras that are not ``fixed``.

    Args:
        pixel: of the network, in pixels of the model.
    """
    config = pycolmap.BundleAdjustmentConfig()
    for i in model.reg_image_ids():
        config.add_image(i)
    for camera_id, camera in model.cameras.items():
        if camera_id in fixed:
            config.set_constant_cam_intrinsics(camera_id)
        else:
            params = [*camera.params, 0.0]
            camera.model = pycolmap.CameraModelId.RADIAL
            camera.params = params
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions(refine_principal_point=True, print_summary=False)
    make_robust(options, pixel, STEPS)
    options.ceres.min_num_residuals_for_cpu_multi_threading = 2**31 - 1
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def _scale_back(model: pycolmap.Reconstruction, photos: Photos, pixels: Sequence[float]) -> None:
    """From the network's pixels to those of the photos."""
    for camera_id, camera in model.cameras.items():
        params = np.array(camera.params)
        params[:3] *= pixels[camera_id - 1]
        camera.params = params
        taken_by = photos.devices[camera_id - 1].camera
        camera.width, camera.height = taken_by.width, taken_by.height
    for image in model.images.values():
        pixel = pixels[image.camera_id - 1]
        for point in image.points2D:
            point.xy = point.xy * pixel
    model.update_point_3d_errors()


def _stood_up(model: pycolmap.Reconstruction, photos: Photos) -> SfmModel:
    """The model in a frame whose z points up as people hold cameras, with the middle of the cameras as its origin."""
    poses = {i: pose_of(model, i) for i in sorted(model.reg_image_ids())}
    up = upright([HELD[photos.orientations[i - 1]] @ pose for i, pose in poses.items()])
    across = np.cross(up, [1.0, 0, 0] if abs(up[0]) < 0.7 else [0.0, 1, 0])
    across /= np.linalg.norm(across)
    turn = np.stack([across, np.cross(up, across), up])
    return transformed(model, 1.0, turn, -turn @ np.mean([pose.center for pose in poses.values()], axis=0))


def transformed(
    model: pycolmap.Reconstruction, scale: float, rotation: np.ndarray, translation: np.ndarray
) -> SfmModel:
    """The model in another frame: a point x goes to ``scale * rotation @ x + translation``."""
    model = copy.deepcopy(model)
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), translation))
    cameras = {
        k - 1: Camera(c.model_name, c.width, c.height, tuple(map(float, c.params))) for k, c in model.cameras.items()
    }
    poses = {i - 1: pose_of(model, i) for i in sorted(model.reg_image_ids())}
    return SfmModel(model, poses, {k: cameras[k] for k in sorted(cameras)})


def why_unregistered(
    photos: Photos, keypoints: Sequence[int], shared: Mapping[tuple[int, int], int], models: Sequence[SfmModel]
) -> dict[str, str]:
    """Name to reason of the photos that no model has, those that were left out before as well.

    Args:
        keypoints: how many each photo has. shared: matches of the pairs that have a geometry.
    """
    registered = {photo for model in models for photo in model.poses}
    partners: dict[int, list[tuple[int, int]]] = {i: [] for i in range(len(photos.names))}  # matches, photo
    for (i, j), count in shared.items():
        for one, other in ((i, j), (j, i)):
            partners[one].append((count, other))
    why = dict(photos.left_out)
    for i, name in enumerate(photos.names):
        if i in registered:
            continue
        held = [(count, other) for count, other in partners[i] if other in registered]
        if keypoints[i] < MIN_MATCHES:
            why[name] = f"it has {keypoints[i]} keypoints"
        elif not partners[i]:
            why[name] = "it shares matches with no other photo"
        elif not held:
            why[name] = (
                f"it shares matches only with photos that are not registered, first {photos.names[partners[i][0][1]]}"
            )
        else:
            count, other = max(held)
            why[name] = f"its matches do not hold a pose, the most ({count}) are with {photos.names[other]}"
    return dict(sorted(why.items()))


def write_model(model: SfmModel, folder: Path, photos: Path | None = None) -> None:
    """Writes COLMAP's model, binary, into a folder that is there; with the points' colours, if it reads the photos."""
    if photos is not None:
        with suppress(Exception):  # of a format that pycolmap does not read: colours are for the eye
            model.reconstruction.extract_colors_for_all_images(photos, num_threads=1)
    model.reconstruction.write_binary(folder)
