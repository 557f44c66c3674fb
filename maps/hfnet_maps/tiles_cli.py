"""What `hfnet-map` does with places in tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.table import Table

from hfnet_edge.errors import InputError, MapFormatError, OutputError
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX
from hfnet_edge.map.tiled_map import ANEW, TiledMap
from hfnet_edge.map_cameras import cameras_path, copy_cameras
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import Report, command, progress, size_text, wrote
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import check_writable, resolved
from hfnet_maps.content import BuiltMap, content_of, read_content
from hfnet_maps.evaluation.pictures import draw_tiles
from hfnet_maps.evaluation.png import check_png
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.writer import Sections, built_sections, write_map
from hfnet_maps.tiles.cut import cut
from hfnet_maps.tiles.join import join
from hfnet_maps.tiles.writer import rewrite_place, write_place


def tile_map(source: Path, images: int, output: Path) -> None:
    """Cuts a map."""
    _check_folder(output, source)
    content = read_content(source)
    if not len(content.positions):
        raise InputError(f"{source} has no landmarks", "build it again, with images that overlap")
    with progress() as report:
        write_place(output, cut(content, images, report))
    copy_cameras(source, output)
    place = TiledMap(output)
    _show(place)
    if content.scene is not None:
        print("a scene network knows a whole map: tiles are not searched by it")
    packed = f"{output.with_suffix('')}_packed{output.suffix}"
    wrote(output, command("hfnet-map", "pack", output, "--budget", "4MB", "-o", packed))


def pack_place(source: Path, budget: int, codec: CodecName | None, output: Path) -> None:
    """Packs each tile of a place into a budget."""
    place = TiledMap(source)
    _check_folder(output, *(source / name for name in (INDEX, *(tile.name for tile in place.tiles))))
    with progress() as report:
        rewrite_place(output, place.index, _packed(place, budget, codec, report))
    copy_cameras(source, output)
    _show(TiledMap(output))
    wrote(output, command("hfnet-map", "inspect", output))


def join_place(source: Path, output: Path, then: str) -> None:
    """Makes one map of a place's tiles, as they were built."""
    place = TiledMap(source)
    CommandFiles(*(source / name for name in (INDEX, *(tile.name for tile in place.tiles)))).writes(output)
    tiles = [content_of(place.tile(number)) for number in range(len(place.tiles))]
    built = [tile for tile in tiles if isinstance(tile, BuiltMap)]
    if len(built) < len(tiles):
        raise InputError(
            f"the tiles of {source} are packed, each with tables of its own", "join them as they were built"
        )
    joined = join(built)
    with progress() as report:
        write_map(built_sections(joined, report), output)
    copy_cameras(source, output)
    print(f"{len(joined.names)} images, {len(joined.positions)} landmarks of {sum(len(t.positions) for t in built)}")
    wrote(output, then)


def verify_place(path: Path) -> None:
    """Checks every byte of the index and of all tiles."""
    place = TiledMap(path)
    content_of(place.index)
    with progress() as report:
        for number, entry in enumerate(place.tiles):
            report("checking", number, len(place.tiles))
            tile = place.tile(number)
            if hashlib.sha256(tile.file.data).hexdigest() != entry.sha256:
                raise MapFormatError(f"the tile {tile.path} is not what its name says", ANEW)
            content_of(tile)
    print(f"{path} is whole: {len(place.tiles)} tiles, {sum(tile.core for tile in place.tiles)} images")
    print(f"next: {command('hfnet-map', 'inspect', path)}")


def inspect_place(path: Path, picture: Path | None, localize: Callable[[LocalizationMap], str]) -> None:
    """Shows what a place holds; ``localize`` is the command that localizes in it."""
    place = TiledMap(path)
    if picture is not None:
        check_png(
            "--picture", picture, CommandFiles(*(path / name for name in (INDEX, *(t.name for t in place.tiles))))
        )
    d = place.index.description
    print(f"{path}: a place of {sum(tile.core for tile in place.tiles)} images in tiles, made by {d.generator}")
    print(f"extractor: {d.architecture} ({d.precision}), weights {d.weightsHash or 'unknown'}")
    if d.globalWeightsHash:
        print(f"global descriptors: of the weights {d.globalWeightsHash}")
    print(f"index: {place.index.image_count} images, {d.globalDim} of {d.extractorGlobalDim} dimensions")
    if (earth := place.index.earth) is not None:
        print(f"place on Earth: {earth.latitude:.6f}, {earth.longitude:.6f}; a unit is {earth.metres:.4g} m")
    _show(place)
    if picture is not None:
        draw_tiles((place.tile(number) for number in range(len(place.tiles))), picture)
        wrote(picture)
    print(f"next: {localize(place.index)}")


def _packed(place: TiledMap, budget: int, codec: CodecName | None, report: Report) -> Iterator[Sections]:
    """The sections of each tile, packed."""
    for number in range(len(place.tiles)):
        report("packing tiles", number, len(place.tiles))
        sections, _ = choose(content_of(place.tile(number)), budget, codec)
        yield sections
    report("packing tiles", len(place.tiles), len(place.tiles))


def _check_folder(output: Path, *inputs: Path) -> None:
    """Raises OutputError: the folder cannot be written, holds an input, or has something else that is called so."""
    check_writable(output, folder=True)
    CommandFiles(*inputs, *(cameras_path(path) for path in inputs)).writes(cameras_path(output))
    if any(resolved(path).parent == resolved(output) for path in inputs):
        raise OutputError(f"cannot write {output}: the inputs are there", "name another folder")


def _show(place: TiledMap) -> None:
    """A row for each tile."""
    table = Table(title=f"{len(place.tiles)} tiles", title_justify="left")
    for heading in ("tile", "bytes", "images", "of them core", "across"):
        table.add_column(heading, justify="left" if heading == "tile" else "right")
    for tile in place.tiles:
        across = max(tile.high - tile.low)
        table.add_row(tile.sha256[:12], size_text(tile.bytes), f"{tile.images}", f"{tile.core}", f"{across:.3g}")
    show(table)
    total = sum(tile.bytes for tile in place.tiles)
    index = len(place.index.file.data)
    print(f"index {size_text(index)}, tiles {size_text(total)}")
