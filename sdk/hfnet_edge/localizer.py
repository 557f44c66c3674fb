"""From an image to a pose: load ─> the method looks ─> and searches ─> for each of its candidates: pose ─> second look
─> accept?

How landmarks are sought is the method's, see `hfnet_edge.methods`; which candidate is given is decided in
`hfnet_edge.best`; of a place in tiles, `hfnet_edge.searches` says where to look. Everything else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from hfnet_edge.best import PLACES, Found, best_of
from hfnet_edge.clock import Clock
from hfnet_edge.errors import CameraError, InputError, MismatchError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose, checked_pose
from hfnet_edge.image.frame import ANY, ROTATIONS, AnyImage, Colors, Frame, as_described, open_any, turned_by
from hfnet_edge.image.image_file import ImageFile
from hfnet_edge.image.photo import Photo, photo_of
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.tiled_map import TiledMap, open_place
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.methods.retrieval import likeness
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.network import Network
from hfnet_edge.prior import Known, Prior
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.rig import View, localize_views, own_poses
from hfnet_edge.searches import Search, TileSearches
from hfnet_edge.shell.one_thread import one_thread
from hfnet_edge.trust.second_look import Landmarks, guided_matches, nearest_views

TRACKED = 36_000  # landmarks that a tracked query is sought by, times the radius in pixels of the network's input
MIN_TRACKED = 300


@dataclass(frozen=True)
class Stages:
    """All that the pipeline makes of one photo, in order."""

    photo: Photo
    query: Query
    result: LocalizationResult


@dataclass(frozen=True)
class RigFrame:
    """What one camera of a rig saw.

    Attributes:
        image, camera, colors, rotation: see `Localizer.localize`.
        cam_from_rig: from the rig's frame to the camera's, lengths in map units.
    """

    image: AnyImage
    camera: Camera
    cam_from_rig: Pose
    colors: Colors | None = None
    rotation: int | None = None


class Localizer:
    """Localizes photos in one map, or in a place in tiles, with the networks that made its features.

    Threads may share a localizer, a map and a network: every call answers for its own photo, with the bits that it gets
    alone. Networks then run in an interpreter for each call, see `hfnet_edge.networks.network.Network`.

    Args:
        map_: a `.hfmap` file, the folder of a place in tiles, the URL of either, or an open map or place.
        networks: `.tflite` files or loaded networks, in any order: HF-Net, and the patch network where one describes
            the landmarks.
        config: of the search.
        cache: folder in which what is fetched of a place behind a URL stays; None: it is fetched each time anew.

    Attributes:
        map: the map; of a place in tiles its index, which says where it is and has no landmarks.
        place: in tiles; None: the map is of one file.

    Raises:
        MapFormatError, ModelError: a file is missing or damaged. RemoteError: a URL cannot be read.
        MismatchError: they do not belong together, or the map lacks what the method searches in.
        InputError: there is no such method.
    """

    def __init__(
        self,
        map_: LocalizationMap | TiledMap | Path | str,
        *networks: Network | Path | str,
        config: LocalizationConfig | None = None,
        cache: Path | str | None = None,
    ):
        self.networks = Networks(*networks)
        opened = open_place(map_, cache) if isinstance(map_, Path | str) else map_
        self.config = config or LocalizationConfig()
        self.place = opened if isinstance(opened, TiledMap) else None
        self.map = opened.index if isinstance(opened, TiledMap) else opened
        self._tiles = None if self.place is None else TileSearches(self.place, self.networks, self.config)
        self.method = self._tiles.looking if self._tiles else open_method(self.map, self.networks, self.config)

    def map_of(self, result: LocalizationResult) -> LocalizationMap:
        """The map that a result is of, whose images its `prior_frames` are; of a place in tiles the tile.
        Raises MapFormatError, RemoteError: it has to be opened again, and cannot be."""
        return self.map if self.place is None or result.tile is None else self.place.tile(result.tile)

    def near(self, expected: Pose, depth: float) -> tuple[Method, Pose]:
        """The method in which a camera is tracked, and its expected pose relative to the origin of that method's map;
        of a place in tiles in the tile of the index's view that is nearest.

        Args:
            expected: cam_from_map, relative to the origin of `map`. depth: of the scene, map units.

        Raises:
            MapFormatError, RemoteError: the tile is missing, another version, or cannot be fetched.
        """
        if self._tiles is None:
            return self.method, expected
        views, _ = nearest_views(self.map, expected, depth)
        method = self._tiles.method_of(int(views[0]))
        shift = Pose(np.array([1.0, 0, 0, 0]), method.map.origin - self.map.origin)
        return method, expected @ shift

    def one_map(self, what: str) -> LocalizationMap:
        """The map, for ``what`` needs one. Raises MismatchError: it is a place in tiles."""
        if self.place is not None:
            raise MismatchError(
                f"{what} works in one map, and {self.map.path} is the index of many",
                "give it one tile, a file of the folder, or a map in one file",
            )
        return self.map

    def localize(
        self,
        image: AnyImage,
        camera: Camera,
        *,
        colors: Colors | None = None,
        rotation: int | str | None = None,
        prior: Prior | None = None,
    ) -> LocalizationResult:
        """The pose of one photo or frame, always that of the camera as described.

        Args:
            image: a file's name or bytes, a picture of Pillow's, (H, W) uint8 grey levels of any strides (a Y plane),
                or (H, W, 3) uint8. The same grey levels give the same bits in every form.
            colors: "rgb" or "bgr", of an array with three channels.
            rotation: degrees clockwise, 0, 90, 180 or 270, by which the stored pixels must be turned to be upright, as
                Android's `ImageProxy` says it; the camera then describes the stored pixels. `ANY`: to be found, which
                costs a frame that is not localized as it is three further looks. None: as EXIF says, or else gravity.
            prior: what is known beforehand.

        Raises:
            ImageError, CameraError: the image cannot be read, or the camera is of another size.
            InputError: another argument makes no sense.
            MapFormatError: the map is damaged where the query touches it; a tile is missing, or another version.
            RemoteError: what the query touches cannot be fetched. ModelError: a network fails.
        """
        return self.stages(image, camera, colors=colors, rotation=rotation, prior=prior).result

    def stages(
        self,
        image: AnyImage,
        camera: Camera,
        *,
        colors: Colors | None = None,
        rotation: int | str | None = None,
        prior: Prior | None = None,
    ) -> Stages:
        """As `localize`, with what was made on the way."""
        if not isinstance(camera, Camera):
            raise CameraError(f"{camera!r} is not a Camera", 'write Camera.parse("PINHOLE width height fx fy cx cy")')
        known = None if prior is None else prior.in_map(self.map)
        clock = Clock()
        with one_thread():
            if rotation == ANY:
                with clock("load"):
                    frame, first = as_described(open_any(image, colors), camera)
                return self._at_any_rotation(frame, first, camera, known, clock)
            with clock("load"):
                opened = open_any(image, colors, rotation)  # type: ignore[arg-type]
                if rotation is None and prior is not None and prior.rotation and opened.orientation == 1:
                    rotation = prior.rotation
                    opened = turned_by(opened, prior.rotation)
            return self._look_and_search(opened, camera, int(rotation or 0), known, clock)

    def localize_query(
        self, query: Query, camera: Camera, known: Known | None = None, clock: Clock | None = None
    ) -> LocalizationResult:
        """As `localize`, of what the method has made of a photo.

        Args:
            known: a prior in `map`.
        """
        if self._tiles is None:
            return localize_query(self.method, query, camera, clock, known)
        return _localize_in_tiles(self._tiles, query, camera, clock, known)

    def localize_rig(self, frames: Sequence[RigFrame], *, prior: Prior | None = None) -> LocalizationResult:
        """The pose of several cameras that are fixed to each other, seen at one moment: ``rig_from_world``.

        Args:
            frames: what each camera saw. prior: what is known of the rig's position; gravity is in the rig's axes.

        Raises:
            InputError: there is no frame, or a pose is none. Others as of `localize`.
        """
        if not frames:
            raise InputError("the rig has no frames", "give one of each camera")
        clock, map_ = Clock(), self.one_map("a rig")
        known = None if prior is None else prior.in_map(map_)
        with one_thread():
            seen = [self._seen_by(frame, clock) for frame in frames]

            def among(rows: np.ndarray | None) -> LocalizationResult:
                views = [view_of(self.method, replace(q, among=rows), c, pose, clock) for q, c, pose in seen]
                return localize_views(map_, views, self.config)

            result = among(None if known is None else known.among)
            if known is not None and (result.pose is None or known.contradiction(result.pose, result.position_std)):
                free = among(None)
                result = free if free.pose is None else replace(free, notes=(_dropped(known, free),))
        return replace(result, milliseconds=clock.milliseconds)

    def _seen_by(self, frame: RigFrame, clock: Clock) -> tuple[Query, Camera, Pose]:
        """What the method makes of a rig's frame; its camera and cam_from_rig."""
        cam_from_rig = checked_pose("cam_from_rig", frame.cam_from_rig)
        with clock("load"):
            opened = open_any(frame.image, frame.colors, frame.rotation)
            photo = photo_of(opened, self.method.input_size, frame.camera)
        return self.method.look(photo, clock), frame.camera, cam_from_rig

    def _look_and_search(
        self, image: ImageFile | Frame, camera: Camera, rotation: int, known: Known | None, clock: Clock
    ) -> Stages:
        with clock("load"):
            photo = photo_of(image, self.method.input_size, camera)
        query = self.method.look(photo, clock)
        return self._searched(photo, query, camera, rotation, known, clock)

    def _searched(
        self, photo: Photo, query: Query, camera: Camera, rotation: int, known: Known | None, clock: Clock
    ) -> Stages:
        result = self.localize_query(query, camera, known, clock)
        return Stages(photo, query, replace(result, rotation=rotation))

    def _at_any_rotation(self, frame: Frame, first: int, camera: Camera, known: Known | None, clock: Clock) -> Stages:
        """As the frame is most likely upright; where that is not localized, at the others, the likeliest by retrieval
        first."""
        upright = self._look_and_search(turned_by(frame, first), camera, first, known, clock)
        if upright.result.status is Status.LOCALIZED:
            return upright
        others = []
        for rotation in sorted(ROTATIONS.keys() - {first}):
            with clock("load"):
                photo = photo_of(turned_by(frame, rotation), self.method.input_size, camera)
            query = self.method.look(photo, clock)
            with clock("retrieve"):
                like = 0 if query.features is None else likeness(self.map, query.features.global_descriptor)
            others.append((-like, rotation, photo, query))
        for _, rotation, photo, query in sorted(others, key=lambda other: other[:2]):
            stages = self._searched(photo, query, camera, rotation, known, clock)
            if stages.result.status is Status.LOCALIZED:
                return stages
        return replace(upright, result=replace(upright.result, milliseconds=clock.milliseconds))


def localize_features(
    map_: LocalizationMap | TiledMap,
    features: Features,
    camera: Camera,
    config: LocalizationConfig | None = None,
    prior: Prior | None = None,
) -> LocalizationResult:
    """The pose for features that are already there: everything after the networks.

    Raises:
        MapFormatError: the map is damaged where the query touches it.
        RemoteError: that cannot be fetched.
        MismatchError: the map lacks what the method searches in.
    """
    query, config = Query(features.pixel, features), config or LocalizationConfig()
    if isinstance(map_, TiledMap):
        known = None if prior is None else prior.in_map(map_.index)
        return _localize_in_tiles(TileSearches(map_, None, config), query, camera, None, known)
    known = None if prior is None else prior.in_map(map_)
    return localize_query(open_method(map_, None, config), query, camera, known=known)


def localize_query(
    method: Method, query: Query, camera: Camera, clock: Clock | None = None, known: Known | None = None
) -> LocalizationResult:
    """The pose of a query that a method has looked at. Raises MapFormatError: the map is damaged where touched.

    With what is ``known`` beforehand it is sought where that allows, and given where that agrees; otherwise without.
    """
    return _localized(lambda held: [[Search(method, known if held else None)]], query, camera, clock, known)


def _localize_in_tiles(
    tiles: TileSearches, query: Query, camera: Camera, clock: Clock | None, known: Known | None
) -> LocalizationResult:
    """As `localize_query`, in the tiles of a place; ``known`` in its index."""
    return _localized(lambda held: tiles.rounds(query, known if held else None), query, camera, clock, known)


def _localized(
    rounds: Callable[[bool], Iterable[Sequence[Search]]],
    query: Query,
    camera: Camera,
    clock: Clock | None,
    known: Known | None,
) -> LocalizationResult:
    """As `localize_query`, in the maps of ``rounds``, which are told whether they are to hold to what is known."""
    clock = clock or Clock()
    if known is None:
        return _search(rounds(False), query, camera, clock)
    result = _search(rounds(True), query, camera, clock)
    if result.status is Status.LOCALIZED:
        return result
    free = _search(rounds(False), query, camera, clock)
    if free.pose is None:
        return replace(result, milliseconds=clock.milliseconds)
    return replace(free, notes=(_dropped(known, free),))


def _dropped(known: Known, free: LocalizationResult) -> str:
    """Why a prior was, given the pose that was found without it."""
    assert free.pose is not None, "it was found"
    why = known.contradiction(free.pose, free.position_std)
    return f"the prior was dropped: {why or 'nothing was found among the reference images that it allows'}"


def view_of(
    method: Method,
    query: Query,
    camera: Camera,
    cam_from_rig: Pose,
    clock: Clock | None = None,
) -> View:
    """A query as one of several views, with what the method finds in its first `PLACES` places.

    Raises:
        MapFormatError: the map is damaged where touched. MismatchError: the method has no features to look among.
    """
    if query.features is None:
        raise MismatchError(f"{type(method).__name__} has no features", "take several views by another method")
    found = islice(method.candidates(query, clock or Clock()).matches, PLACES)
    places = tuple(m for m in found if m.landmarks is not None and m.keypoints is not None)
    max_error = method.config.pose.max_error * query.pixel
    own = own_poses(places, camera, max_error, method.config.pose)
    return View(query.features, camera, cam_from_rig, places, max_error, own)


def track_query(
    method: Method,
    query: Query,
    camera: Camera,
    expected: Pose,
    depth: float,
    radius: float,
    clock: Clock | None = None,
) -> LocalizationResult:
    """The pose of a query whose pose is about known: landmarks are sought near where they should be, and nowhere else.

    Args:
        expected: cam_from_map, relative to the map's origin. depth: of the scene, map units.
        radius: pixels about each landmark.

    Raises:
        MapFormatError: the map is damaged where touched.
    """
    clock, features = clock or Clock(), query.features
    if features is None or not len(features.keypoints):
        return LocalizationResult(Status.NO_KEYPOINTS, milliseconds=clock.milliseconds)
    with clock("track"):
        views, _ = nearest_views(method.map, expected, depth)
        ids = method.map.observed_by(views)
        xy = camera.project(expected.transform(method.map.positions(ids)))
        ids = ids[((xy > 0) & (xy < (camera.width, camera.height))).all(axis=1)]  # NaN behind the camera is not
        most = max(MIN_TRACKED, int(TRACKED * query.pixel / radius))  # the second look takes all
        if len(ids) > most:  # neighbours have neighbouring numbers, so these are spread evenly
            ids = ids[np.linspace(0, len(ids) - 1, most).astype(np.int64)]
        landmarks = Landmarks.of(method.map, ids)
        near, _, _ = guided_matches(method.map, features, camera, expected, landmarks, radius)
    chance = min(0.9, (method.config.pose.max_error * query.pixel / radius) ** 2)  # of areas
    candidates = Candidates([near] if len(near) else (), abstention=Status.TOO_FEW_MATCHES, chance=chance)
    return best_of([[Found(Search(method), candidates)]], query, camera, clock)


def _search(rounds: Iterable[Sequence[Search]], query: Query, camera: Camera, clock: Clock) -> LocalizationResult:
    """What the methods find, in one map or in several."""

    def of(search: Search) -> Found:
        asked = query if search.known is None else replace(query, among=search.known.among)
        return Found(search, search.method.candidates(asked, clock))

    return best_of(([of(search) for search in searches] for searches in rounds), query, camera, clock)
