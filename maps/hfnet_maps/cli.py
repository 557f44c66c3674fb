"""`hfnet-map`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hfnet_edge.errors import ImageError, InputError, OutputError
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map_cameras import copy_cameras
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import command, progress, reports_errors, run, size_text, wrote
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.lists import find_images, read_names
from hfnet_edge.shell.quiet import quiet
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import atomic_folder, atomic_write, check_writable
from hfnet_maps.build.choices import BuildMethod, Mapper
from hfnet_maps.build.reference import model_files
from hfnet_maps.evaluation.png import check_png
from hfnet_maps.pack.choice_table import choice_table, tell_choice
from hfnet_maps.pack.size import parse_size

if TYPE_CHECKING:
    from hfnet_maps.content import MapNetworks

WORST = 5  # fixes that are shown
LITTLE = 0.8  # of a map's size: a larger delta is not worth its trouble
main = typer.Typer(
    help="Build maps for localization on the device, pack them, and look into them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# The heavy imports (pycolmap, LiteRT, matplotlib) wait until the options have been checked.


@main.command()
@reports_errors
def build(
    model: Annotated[
        list[Path],
        typer.Option(
            metavar="M.tflite", help="The network, from `hfnet-export`; again for a patch or retrieval network."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="scene.hfmap", help="The map.")],
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the reference images.")] = None,
    video: Annotated[
        Path | None,
        typer.Option(metavar="V.mp4", help="In its place: a video, whose sharp and distinct frames are kept."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="COLMAP_MODEL", help="Folder with their cameras and poses; default: both are found from the photos."
        ),
    ] = None,
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="map.txt", help="Images to map, one name a line; default: all of --reference, or all."
        ),
    ] = None,
    method: Annotated[
        BuildMethod,
        typer.Option(
            help="parallel: landmarks by a patch network, with random trees. "
            "sparse-to-dense: hypercolumns beside the descriptors, for blur and darkness."
        ),
    ] = BuildMethod.HIERARCHICAL,
    refine_poses: Annotated[
        bool, typer.Option("--refine-poses", help="Adjust poses that are only about right, such as a device's own.")
    ] = False,
    mapper: Annotated[
        Mapper | None, typer.Option(help="Of COLMAP, to find poses from photos alone; default: incremental.")
    ] = None,
    align: Annotated[
        str | None,
        typer.Option(
            metavar="gps|FILE",
            help="Frame and scale of a map from photos: by GPS in EXIF, a .csv of name,x,y,z of cameras, a device's "
            "poses (transforms.json), or a trajectory (TUM).",
        ),
    ] = None,
    distance: Annotated[
        str | None,
        typer.Option(
            metavar='"a.jpg:x,y b.jpg:x,y 1.20m"',
            help="In its place: a measured distance between two marked points.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Processes, from photos or in tiles; the map is the same.", min=1, max=64)
    ] = 1,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local:4", help="In their place a Dask cluster, whose workers see the same folders."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL", help="Where features and matches are kept, s3://... for a cluster; default: scene_sfm."
        ),
    ] = None,
    tile_images: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Write a folder of tiles of about N images each, for places of thousands.", min=2
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Draw cameras and landmarks from above.")
    ] = None,
) -> None:
    """Build a map from photos, or from images with known poses.

    From photos, COLMAP's model, features and matches (hloc's layout) go into scene_sfm beside scene.hfmap, and the
    cameras into scene.cameras.txt. Stopped, the same command goes on.

    Examples:

        hfnet-map build --images photos --model hfnet_int8.tflite -o scene.hfmap --picture above.png

        hfnet-map build --video walk.mp4 --model hfnet_int8.tflite -o scene.hfmap

        hfnet-map build --images photos --model hfnet_int8.tflite --align gps -o scene.hfmap

        hfnet-map build --images photos --model hfnet_int8.tflite --distance "a.jpg:120,300 b.jpg:500,310 1.20m" \\
            -o scene.hfmap

        hfnet-map build --images photos --reference sparse/0 --list map.txt --model hfnet_int8.tflite -o scene.hfmap

        hfnet-map build --images photos --model hfnet_int8.tflite --tile-images 250 --dask tcp://host:8786 \\
            -o town.tiles

        hfnet-map build --method parallel --model hfnet_int8.tflite --model crbnet_int8.tflite \\
            --images photos --reference sparse/0 --list map.txt -o scene.hfmap

        hfnet-map build --method sparse-to-dense --model hfnet_int8.tflite \\
            --images photos --reference sparse/0 --list map.txt -o scene.hfmap
    """
    if (images is None) == (video is None):
        raise InputError("there is nothing to build from, or too much", "give either --images or --video")
    if video is not None and (reference is not None or list_ is not None):
        raise InputError("--reference and --list are of --images", "leave them out with --video")
    if images is not None and not os.path.isdir(images):
        raise InputError(f"there is no folder {images}", "check --images")
    if reference is None and refine_poses:
        raise InputError("--refine-poses is of a --reference", "leave it out: poses from photos need none")
    if reference is not None and (mapper is not None or align is not None or distance is not None):
        raise InputError(
            "--mapper, --align and --distance are for poses from photos, and --reference gives poses",
            "leave one of them out",
        )
    if align is not None and distance is not None:
        raise InputError("--align and --distance both give the scale", "leave one of them out")
    for wrong, option in ((refine_poses, "--refine-poses"), (distance, "--distance")):
        if tile_images is not None and wrong:
            raise InputError(f"{option} does not go with --tile-images", "leave it out")
    if tile_images is None and reference is not None and (jobs > 1 or dask is not None or store is not None):
        raise InputError(
            "--jobs, --dask and --store are of builds from photos or in tiles", "leave them out, or add --tile-images"
        )
    needs("maps", "pycolmap")
    if reference is None or tile_images is not None:
        needs("maps", "h5py")
    if dask is not None:
        needs("cluster", "distributed")
    from hfnet_maps.build.placement import Distance
    from hfnet_maps.build_cli import PhotoOptions, build_from_photos, build_tiles, build_with_poses

    def then(map_: Path, sections: Collection[int]) -> str:
        return _localize(map_, model, _method(sections)) if method is BuildMethod.PARALLEL else _pack(map_)

    names = None if list_ is None else read_names(list_)
    measured = None if distance is None else Distance.parse(distance)
    options = PhotoOptions(
        images, video, names, list_, model, output, method, mapper or Mapper.INCREMENTAL, align, measured, jobs, dask,
        store,
    )  # fmt: skip
    if tile_images is not None:
        build_tiles(options, reference, tile_images, picture, _pack_tiles)
    elif reference is None or images is None:
        build_from_photos(options, picture, then)
    else:
        names = names or _reference_images(reference, images)
        build_with_poses(images, reference, names, list_, model, output, method, refine_poses, picture, then)


def _reference_images(reference: Path, images: Path) -> list[str]:
    """All images of a COLMAP model. Raises InputError, ImageError: some are not in the folder."""
    from hfnet_maps.build.reference import read_reference

    names = list(read_reference(reference).poses)
    try:
        find_images(images, names, f"images of {reference}")
    except ImageError as e:
        raise ImageError(e.problem, "check --images, or name those that are there with --list") from e
    return names


def _pack(map_: Path) -> str:
    """The command that packs a map as built."""
    return command("hfnet-map", "pack", map_, "--budget", "4MB", "-o", f"{map_.with_suffix('')}_packed.hfmap")


def _pack_tiles(place: Path) -> str:
    """The command that packs each tile of a place."""
    return command("hfnet-map", "pack", place, "--budget", "4MB", "-o", f"{place.with_suffix('')}_packed.tiles")


@main.command()
@reports_errors
def pack(
    budget: Annotated[
        str, typer.Option(metavar="SIZE", help="Of the file, of each tile: 300kB, 4MB, ... (powers of 1000).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.hfmap", help="The packed map, or folder.")],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE.hfmap", help="From `hfnet-map build`; or a folder of `tile`.")
    ] = None,
    sfm: Annotated[
        Path | None, typer.Option(metavar="COLMAP_MODEL", help="In place of SOURCE: hloc's model, ...")
    ] = None,
    features: Annotated[Path | None, typer.Option(metavar="features.h5", help="... its local features, ...")] = None,
    global_features: Annotated[
        Path | None, typer.Option(metavar="global-feats.h5", help="... its global ones.")
    ] = None,
    model: Annotated[Path | None, typer.Option(metavar="M.tflite", help="The network that made hloc's files.")] = None,
    codec: Annotated[CodecName | None, typer.Option(help="Only this one; default: the best of all.")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD_packed.hfmap",
            help="Of an updated SOURCE: keep what this packed map holds, and its codec, so that the delta is small.",
        ),
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Plot accuracy against size, and print it.")
    ] = None,
    reliability: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Plot what the probabilities of left-out images are worth.")
    ] = None,
) -> None:
    """Pack a map into a budget of bytes, at the least loss of accuracy.

    Landmarks, their descriptors' codec and the width of global descriptors are chosen by localizing reference images
    that are left out of the map. By the same images the probabilities that the map's poses will come with are
    calibrated.

    Examples:

        hfnet-map pack scene.hfmap --budget 4MB -o packed.hfmap --curve curve.png

        hfnet-map pack --sfm sfm --features features.h5 --global-features global-feats.h5 --budget 4MB -o packed.hfmap

        hfnet-map pack scene2.hfmap --onto packed.hfmap --budget 5MB -o packed2.hfmap

        hfnet-map pack town.tiles --budget 4MB -o packed.tiles
    """
    size = parse_size(budget)
    hloc = {"--sfm": sfm, "--features": features, "--global-features": global_features}
    missing = [name for name, value in hloc.items() if value is None]
    if source is not None and (len(missing) < len(hloc) or model is not None):
        raise InputError("SOURCE.hfmap and hloc's files are given", "give either")
    if source is None and missing:
        raise InputError(
            f"{', '.join(missing)} is missing" if len(missing) < len(hloc) else "there is nothing to pack",
            "give SOURCE.hfmap, or --sfm, --features and --global-features",
        )
    if source is not None and os.path.isdir(source):
        if curve is not None or reliability is not None or onto is not None:
            raise InputError(
                "--curve, --reliability and --onto are of one map", "give them with one tile as SOURCE.hfmap"
            )
        from hfnet_maps.tiles_cli import pack_place

        pack_place(source, size, codec, output)
        return
    if onto is not None and (source is None or any((codec, curve, reliability))):
        raise InputError(
            "--onto takes all but new landmarks from a packed map, and judges nothing",
            "give it with SOURCE.hfmap, without --codec, --curve and --reliability",
        )
    files = CommandFiles(source, onto, features, global_features, model, *(model_files(sfm) if sfm else ()))
    files.writes(output)
    for option, picture in (("--curve", curve), ("--reliability", reliability)):
        if picture is not None:
            check_png(option, picture, files)
    if source is None:
        needs("maps", "h5py")
    from hfnet_maps.content import BuiltMap, PackedMap, read_content
    from hfnet_maps.evaluation.reliability_picture import draw_reliability
    from hfnet_maps.pack.budget import check_judged, choose
    from hfnet_maps.pack.budget import curve as trace_curve
    from hfnet_maps.pack.curve_picture import draw_curve
    from hfnet_maps.pack.ladder import Ladder
    from hfnet_maps.pack.writer import write_map

    if source is not None and onto is not None:
        _pack_onto(source, onto, size, output)
        return
    with progress() as report:
        place: BuiltMap | PackedMap
        if source is not None:
            place = read_content(source)
        else:
            from hfnet_edge.networks.by_role import open_network
            from hfnet_maps.build.hloc import read_hloc

            assert sfm is not None and features is not None and global_features is not None
            description = None if model is None else open_network(model).description
            place = read_hloc(sfm, features, global_features, description, report)
        ladder = None
        if curve is not None or reliability is not None:
            ladder = Ladder(check_judged(place), codec)
        sections, choices = choose(place, size, codec, report, ladder)
        write_map(sections, output)
        if source is not None:
            copy_cameras(source, output)
        frontier = [] if curve is None else trace_curve(place, codec, report, ladder)
    chosen = choices[0]
    if place.networks.of_patches and Section.RANDOM_TREES not in sections:
        print("trees grow from all observations, and a packed source has none: the methods that walk trees are lost")
    if isinstance(place, PackedMap):
        print("the source is packed already: it keeps its codec and calibration, and loses landmarks where it must")
    elif chosen.scores is None:
        print("the source has too few images to leave one out, so the usual settings were taken, not judged")
    tell_choice(size, choices, len(place.positions))
    if curve is not None:
        show(choice_table("The best at each size", frontier))
        draw_curve(frontier, chosen, curve)
        wrote(curve)
    if reliability is not None and chosen.calibrated is not None:
        draw_reliability(chosen.calibrated.after, reliability)
        wrote(reliability)
    if place.networks.weights_hash:
        wrote(output, _localize(output, _networks(place.networks, sections, model), _method(sections)))
    else:  # of a network that is not known
        local, global_ = features or "features.h5", global_features or "global-feats.h5"
        hloc_files = ("--features", local, "--global-features", global_)
        wrote(output, command("hfnet-localize", "--map", output, *hloc_files, "--queries", "LIST", "-o", "poses.txt"))


def _pack_onto(source: Path, onto: Path, size: int, output: Path) -> None:
    """Packs an updated map onto the packed map of an earlier state."""
    from hfnet_edge.map.map_file import LocalizationMap
    from hfnet_maps.content import read_content
    from hfnet_maps.pack.onto import pack_onto
    from hfnet_maps.pack.writer import write_map

    found = pack_onto(read_content(source), LocalizationMap.open(onto), size)
    write_map(found.sections, output)
    copy_cameras(source, output)
    print(
        f"{found.kept} landmarks of {onto} as they are, {found.added} added by the same codec; nothing was judged anew"
    )
    wrote(output, command("hfnet-map", "diff", onto, output, "-o", output.with_suffix(".hfdelta")))


def _method(sections: Collection[int]) -> str:
    """The method that a map is for, by what it holds."""
    if Section.SCENE_TREE in sections:
        return "scene-coordinates"
    if Section.RANDOM_TREES in sections:
        return "parallel"
    return "auto" if Section.HYPERCOLUMNS in sections else "hierarchical"


def _networks(networks: MapNetworks, sections: Collection[int], model: Path | None = None) -> tuple[Path | str, ...]:
    """What to name the networks of a map in a command."""
    two = bool(networks.global_weights_hash)
    others = [
        ("P.tflite", networks.of_patches),
        ("G.tflite", two and not networks.of_patches),
        ("scene.tflite", Section.SCENE_TREE in sections),
    ]
    return (model or "M.tflite", *(name for name, there in others if there))


def _localize(map_: Path, networks: Sequence[Path | str], method: str) -> str:
    """The command that localizes in a map."""
    how = () if method == "hierarchical" else ("--method", method)
    models = [part for network in networks for part in ("--model", network)]
    where = ("--images", "DIR", "--queries", "LIST", "-o", "poses.txt")
    return command("hfnet-localize", *how, "--map", map_, *models, *where)


@main.command()
@reports_errors
def tile(
    source: Annotated[Path, typer.Argument(metavar="SOURCE.hfmap", help="Built or packed.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PLACE.tiles", help="A folder.")],
    images: Annotated[
        int, typer.Option(help="Of a tile, about, and up to half as many of its neighbours.", min=2)
    ] = 250,
) -> None:
    """Cut a map into a folder of maps, of which a device opens those that a query needs.

    Images that see the same landmarks stay together. Packed afterwards, each tile has its own budget.

    Examples:

        hfnet-map tile scene.hfmap -o place.tiles

        hfnet-map tile scene.hfmap --images 100 -o place.tiles
    """
    needs("maps", "pymetis")
    from hfnet_maps.tiles_cli import tile_map

    tile_map(source, images, output)


@main.command()
@reports_errors
def train(
    source: Annotated[Path, typer.Argument(metavar="SOURCE.hfmap", help="From `hfnet-map build`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="scene.tflite", help="The scene network.")],
    map_: Annotated[
        Path | None,
        typer.Option("--map", metavar="OUT.hfmap", help="The map with its labels; default: beside the network."),
    ] = None,
    width: Annotated[int, typer.Option(help="Of its layers: 64 makes 90 kB, 256 600 kB, and is more certain.")] = 256,
    by_image: Annotated[
        bool,
        typer.Option("--by-image", help="Tell it a retrieved image with each keypoint: for places that repeat, rooms."),
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Of the training; default: by the number of observations.")] = None,
) -> None:
    """Train a scene network: a small .tflite that knows one place and names the landmark of a keypoint at once.

    It learns from the map alone, on the cores of this machine and in minutes. Stopped, the same command goes on.

    Example:

        hfnet-map train scene.hfmap -o scene.tflite
    """
    if not 16 <= width <= 1024:
        raise InputError(f"--width {width} is not from 16 to 1024", "256 is usual")
    if steps is not None and not 1 <= steps <= 1_000_000:
        raise InputError(f"--steps {steps} is not from 1 to 1,000,000", "leave it out, or give 2500")
    map_ = map_ or output.with_name(f"{output.stem}_map.hfmap")
    folder = output.with_name(f"{output.stem}.training")
    files = CommandFiles(source)
    files.writes(output)
    files.writes(map_)
    check_writable(folder, folder=True)
    needs("export", "tensorflow", "keras", "ai_edge_quantizer")
    from hfnet_maps.content import BuiltMap, read_content
    from hfnet_maps.pack.writer import full_sections, write_map

    place = read_content(source)
    if not isinstance(place, BuiltMap):
        raise InputError(f"{source} is packed, and no longer holds what its images observed", "give the built map")
    with quiet():
        from hfnet_export.training.scene_stage import SceneTraining
        from hfnet_maps.build.scene_training import train_scene
    training = None if steps is None else SceneTraining(steps)
    with progress() as report:
        trained, told = train_scene(place, output, folder, width, by_image, training, report=report)
    write_map(full_sections(trained), map_)
    shutil.rmtree(folder)
    table = Table(title="What came of it", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("landmarks that it knows, labels of each level", f"{told.landmarks}, {told.named}")
    table.add_row(f"keypoints of {told.left_out} left-out images that it names right", f"{100 * told.held_out:.0f} %")
    table.add_row("named as by the float network", f"{100 * told.export.fidelity.labels:.1f} %")
    table.add_row("size, in float", f"{size_text(told.export.bytes)}, {size_text(told.export.float_bytes)}")
    table.add_row(
        f"milliseconds for {told.export.timed} keypoints, in float",
        f"{told.export.milliseconds:.1f}, {told.export.float_milliseconds:.1f}",
    )
    show(table)
    wrote(output)
    wrote(map_, _pack(map_))


@main.command()
@reports_errors
def merge(
    sources: Annotated[
        list[Path], typer.Argument(metavar="A.hfmap B.hfmap ...", help="In one frame; or one place in tiles.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.hfmap", help="The merged map.")],
) -> None:
    """Merge several maps in one frame into one file, or the tiles of a place.

    Examples:

        hfnet-map merge floor1.hfmap floor2.hfmap -o house.hfmap

        hfnet-map merge town.tiles -o town.hfmap
    """
    if len(sources) == 1 and os.path.isdir(sources[0]):
        needs("maps", "scipy")
        from hfnet_maps.tiles_cli import join_place

        join_place(sources[0], output, _pack(output))
        return
    if len(sources) < 2:
        raise InputError("there is one map", "name the maps to merge")
    CommandFiles(*sources).writes(output)
    from hfnet_maps.build.merge import merge as merge_sources
    from hfnet_maps.content import read_content
    from hfnet_maps.pack.writer import built_sections, write_map

    parts = [read_content(path) for path in sources]
    merged = merge_sources(parts, [str(path) for path in sources])
    with progress() as report:
        sections = built_sections(merged, report)
    write_map(sections, output)
    print(f"{len(merged.names)} images, {len(merged.positions)} landmarks")
    if any(part.scene is not None for part in parts):
        print("scene networks know one map each: train one for the merged map with `hfnet-map train`")
    wrote(output, _pack(output))


@main.command()
@reports_errors
def update(
    source: Annotated[Path, typer.Argument(metavar="SOURCE.hfmap", help="From `hfnet-map build`.")],
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the new photos; those whose names the map has are skipped.")
    ],
    model: Annotated[
        list[Path],
        typer.Option(metavar="M.tflite", help="The map's network; again for a patch or retrieval network."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.hfmap", help="The map with the new photos.")],
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list", metavar="new.txt", help="Photos to take, one a line, with `MODEL width height params...` or not."
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar='"MODEL width height params..."',
            help="Of photos without one in --list; of-map: of the device which the map's photos are of. "
            "Default: that where there is one of the photo's size, else by EXIF.",
        ),
    ] = None,
) -> None:
    """Register new photos into a built map, whose own poses stay as they are.

    Each new photo is localized in the map. Those that are found observe its landmarks, new landmarks are triangulated,
    and new poses and landmarks are adjusted; then those that were not found are tried again.

    Example:

        hfnet-map update scene.hfmap --images new --model hfnet_int8.tflite -o scene2.hfmap
    """
    if not os.path.isdir(images):
        raise InputError(f"there is no folder {images}", "check --images")
    needs("maps", "pycolmap")
    from hfnet_maps.update_cli import update_map

    update_map(source, images, list_, camera, model, output, _pack(output))


@main.command()
@reports_errors
def georeference(
    map_: Annotated[Path, typer.Argument(metavar="MAP.hfmap", help="Built or packed.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.hfmap", help="The map with its place.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the reference images, with GPS in their EXIF.")
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="F.csv",
            help="In its place: image,latitude,longitude,altitude of cameras, or x,y,z,latitude,... of points.",
        ),
    ] = None,
) -> None:
    """Say where on Earth a map is, so that queries may come with GPS and gravity.

    Examples:

        hfnet-map georeference scene.hfmap --images photos -o placed.hfmap

        hfnet-map georeference scene.hfmap --points surveyed.csv -o placed.hfmap
    """
    if (images is None) == (points is None):
        raise InputError("there is nothing to go by, or too much", "give either --images or --points")
    files = CommandFiles(map_, points)
    files.writes(output)
    from hfnet_edge.map.container import Section
    from hfnet_maps.build.georeference import exif_fixes, georeference, listed_fixes, up_of
    from hfnet_maps.pack.writer import write_map

    place = LocalizationMap.open(map_)
    place.check_all()
    fixes = exif_fixes(place, images) if images is not None else listed_fixes(place, points or Path())
    earth, off = georeference(fixes, up_of([place.pose(i) for i in range(place.image_count)]))
    table = Table(title="Metres that fixes are off, the worst first", title_justify="left")
    table.add_column("fix")
    table.add_column("off", justify="right")
    for i in (-off).argsort(kind="stable")[:WORST]:
        table.add_row(fixes.names[i], f"{off[i]:.2f}")
    show(table)
    print(
        f"{len(off)} fixes: median {sorted(off)[len(off) // 2]:.2f} m, root mean square of those that agree "
        f"{earth.residual:.2f} m; a unit of the map is {earth.metres:.4g} m; its origin is at "
        f"{earth.latitude:.6f}, {earth.longitude:.6f}"
    )
    known = [kind for kind in Section if kind in place.file.sections and kind != Section.CHECKSUMS]
    write_map({**{kind: place.file.bytes(kind) for kind in known}, **earth.sections()}, output)
    copy_cameras(map_, output)
    wrote(output)


@main.command()
@reports_errors
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD.hfmap", help="The map that devices have.")],
    new: Annotated[Path, typer.Argument(metavar="NEW.hfmap", help="The map that they shall have.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.hfdelta", help="What changed.")],
    key: Annotated[
        Path | None, typer.Option(metavar="private.pem", help="Sign it with an Ed25519 key; default: unsigned.")
    ] = None,
) -> None:
    """Make what turns one map into another, so that a device downloads what changed.

    Examples:

        hfnet-map diff old.hfmap new.hfmap -o place.hfdelta

        hfnet-map diff old.hfmap new.hfmap --key private.pem -o place.hfdelta
    """
    CommandFiles(old, new, key).writes(output)
    from hfnet_edge.map.container import MapBytes, open_file
    from hfnet_edge.map.delta import make_delta
    from hfnet_edge.map.signature import signer

    sign = None if key is None else signer(key)
    maps = [open_file(path) for path in (old, new)]
    for path, data in zip((old, new), maps, strict=True):
        file = MapBytes(data, str(path))
        file.check(file.start, len(data))  # damage is not sent on
    delta = make_delta(maps[0], maps[1], sign)
    with atomic_write(output) as out:
        out.write(delta)
    whole = len(maps[1])
    print(f"{size_text(len(delta))} in place of {size_text(whole)}, {100 * len(delta) / whole:.0f} %")
    if len(delta) > LITTLE * whole:
        print("the maps have little in common: one that is packed anew has codes of its own. Send it whole,")
        print("or pack the new one with `hfnet-map pack --onto OLD_packed.hfmap`, which keeps those of the old one")
    trust = () if key is None else ("--trust", "PUBLIC.pem")
    wrote(output, command("hfnet-map", "apply", old, output, *trust, "-o", f"{old.with_suffix('')}_new.hfmap"))


@main.command()
@reports_errors
def apply(
    old: Annotated[Path, typer.Argument(metavar="OLD.hfmap", help="The map that the delta was made from.")],
    delta: Annotated[Path, typer.Argument(metavar="DELTA.hfdelta", help="From `hfnet-map diff`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="NEW.hfmap", help="The new map.")],
    trust: Annotated[
        Path | None,
        typer.Option(metavar="public.pem", help="Refuse a delta that is not signed with this Ed25519 key."),
    ] = None,
) -> None:
    """Turn a map into a newer one, byte for byte, by what `hfnet-map diff` wrote.

    Examples:

        hfnet-map apply old.hfmap place.hfdelta -o new.hfmap

        hfnet-map apply old.hfmap place.hfdelta --trust public.pem -o new.hfmap
    """
    CommandFiles(old, delta, trust).writes(output)
    from hfnet_edge.map.delta import update_map
    from hfnet_edge.map.signature import verifier

    update_map(old, delta, output, None if trust is None else verifier(trust))
    wrote(output, command("hfnet-map", "inspect", output))


@main.command()
@reports_errors
def verify(path: Annotated[Path, typer.Argument(metavar="MAP", help="Any map, or a folder of tiles.")]) -> None:
    """Check every byte and every index of a map, and print its statistics.

    Example:

        hfnet-map verify scene.hfmap
    """
    import numpy as np

    from hfnet_maps.content import content_of

    if os.path.isdir(path):
        from hfnet_maps.tiles_cli import verify_place

        verify_place(path)
        return
    m = LocalizationMap.open(path)
    content_of(m)  # checks everything, sections for tools included
    observed = np.array([len(m.observed(image)) for image in range(m.image_count)])
    seen = np.concatenate([*(m.observed(image) for image in range(m.image_count)), np.zeros(0, np.int64)])
    tracks = np.bincount(seen, minlength=m.landmark_count)
    _, owners = m.descriptor_rows(np.arange(m.landmark_count))
    print(f"{path} is whole")
    table = Table()
    table.add_column("")
    for heading in ("least", "median", "mean", "most"):
        table.add_column(heading, justify="right")
    for name, counts in (
        ("landmarks of an image", observed),
        ("images of a landmark", tracks),
        ("descriptors of a landmark", np.bincount(owners, minlength=m.landmark_count)),
    ):
        if len(counts):
            values = counts.min(), np.median(counts), counts.mean(), counts.max()
            table.add_row(name, *(f"{v:.1f}".removesuffix(".0") for v in values))
    show(table)
    unseen = int((tracks == 0).sum())
    if unseen:
        print(f"{unseen} landmarks are observed by no image")
    print(f"next: {command('hfnet-map', 'inspect', path)}")


@main.command()
@reports_errors
def inspect(
    path: Annotated[Path, typer.Argument(metavar="MAP", help="Any map, or a folder of tiles.")],
    picture: Annotated[Path | None, typer.Option(metavar="F.png", help="The map from above.")] = None,
) -> None:
    """Show what a map holds and what its bytes are spent on.

    Example:

        hfnet-map inspect scene.hfmap --picture above.png
    """
    if os.path.isdir(path):
        from hfnet_maps.content import MapNetworks
        from hfnet_maps.tiles_cli import inspect_place

        def localize(map_: LocalizationMap) -> str:
            return _localize(path, _networks(MapNetworks.of_map(map_), ()), _method(()))

        inspect_place(path, picture, localize)
        return
    m = LocalizationMap.open(path)
    if picture is not None:
        check_png("--picture", picture, CommandFiles(path))
    d, total = m.description, len(m.file.data)
    print(f"{path}: {size_text(total)}, made by {d.generator}")
    print(f"extractor: {d.architecture} ({d.precision}), weights {d.weightsHash or 'unknown'}")
    if d.globalWeightsHash:
        print(f"global descriptors: of the weights {d.globalWeightsHash}")
    stored = f"{d.codec}, {m.codec.row_bytes} bytes for {d.localDim} dimensions"
    print(f"descriptors: local {stored}; global {d.globalDim} of {d.extractorGlobalDim} dimensions, int8")
    if (codec := m.hypercolumn_codec) is not None:
        print(f"hypercolumns: {codec.name}, {codec.row_bytes} bytes for {d.hypercolumnDim} dimensions")
    print(
        f"{d.imageCount} images, {d.landmarkCount} landmarks, {d.observationCount} observations, "
        f"{d.descriptorCount} descriptors"
    )
    if Section.SCENE_TREE in m.file.sections:
        tree = m.scene_tree
        known = int((tree.landmarks >= 0).sum())
        named = " x ".join(map(str, tree.branches))
        print(f"scene network: weights {tree.weights_hash}, {named} labels for {known} landmarks")
    if (earth := m.earth) is not None:
        print(
            f"place on Earth: {earth.latitude:.6f}, {earth.longitude:.6f}; a unit is {earth.metres:.4g} m; "
            f"found within {earth.residual:.2g} m"
        )
    print(f"probabilities: {m.calibration if m.calibration.images else 'not calibrated to this map'}")
    table = Table()
    table.add_column("section")
    for heading in ("bytes", "share", "per landmark", "per image"):
        table.add_column(heading, justify="right")
    entries = m.file.sections.values()
    rest = total - sum(entry.length for entry in entries)
    for name, length in [*((e.name, e.length) for e in entries), ("header and padding", rest), ("in all", total)]:
        if name == "in all":
            table.add_section()
        per_landmark, per_image = (
            f"{length / count:.1f}" if count else "" for count in (d.landmarkCount, d.imageCount)
        )
        table.add_row(name, f"{length}", f"{100 * length / total:.1f} %", per_landmark, per_image)
    show(table)
    if picture is not None:
        from hfnet_maps.evaluation.pictures import draw_map

        draw_map(m, picture)
        wrote(picture)
    from hfnet_maps.content import MapNetworks

    networks = _networks(MapNetworks.of_map(m), m.file.sections)
    print(f"next: {_localize(path, networks, _method(m.file.sections))}")


@main.command()
@reports_errors
def example(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A folder that is not there yet.")],
) -> None:
    """Draw a made place: photos, their true poses, and lists, to try everything on.

    Example:

        hfnet-map example -o place
    """
    if os.path.lexists(output) and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} is there already and not an empty folder", "name a new folder")
    check_writable(output, folder=True)
    needs("maps", "pycolmap")
    from hfnet_maps.synthetic_town.made_place import write_place

    with atomic_folder(output) as folder, progress() as report:
        write_place(folder, progress=lambda done, total: report("photographing", done, total))
    inputs = ("--images", output / "images", "--reference", output / "reference", "--list", output / "map.txt")
    wrote(output, command("hfnet-map", "build", *inputs, "--model", "M.tflite", "-o", output / "map.hfmap"))


def map_main() -> None:
    run(main)
