package dev.hfnet.edge.map

import dev.hfnet.edge.MapFormatException
import dev.hfnet.edge.MismatchException
import java.io.File

/** What an index says of a tile: an ordinary map, of which it shows some images. */
public class TileEntry internal constructor(
    /** Of its file, 64 hex digits. */
    public val sha256: String,
    /** Of its file. */
    public val bytes: Long,
    /** That its header holds at byte 24. */
    public val headChecksum: Long,
    /** Of its file, its own and those around them. */
    public val images: Long,
    /** Images that are the tile's own. */
    public val core: Long,
    /** Images of the index that are of its core. */
    public val representatives: IntRange,
    internal val low: DoubleArray,
    internal val high: DoubleArray,
) {
    /** Of its file, beside the index: another version has another name. */
    public val name: String get() = "$sha256.hfmap"

    /** The lower corner of the box of the core's camera centres, in the world: x, y, z. */
    public val lowerCorner: DoubleArray get() = low.copyOf()

    /** The upper corner of that box. */
    public val upperCorner: DoubleArray get() = high.copyOf()

    override fun toString(): String = name
}

/**
 * The index of a place in tiles (SPEC, section 19): which tiles there are, where each lies, and what it looks like. Threads
 * may share it.
 *
 * Where the bytes of a tile come from, a download, assets, a cache of files, is the app's. A localizer asks for those that it
 * needs:
 * ```
 * val place = PlaceIndex.open(File(folder, "index.hfmap"))
 * val localizer = Localizer(place, { tile -> MappedFile(downloaded(tile.name)) }, networks)
 * ```
 * Without one, of features that are already there:
 * ```
 * val asked = TileRanking.of(place, features.globalDescriptor)
 * val maps = asked.tiles.map { place.read(it, MappedFile(downloaded(place.tiles[it].name))) }
 * ```
 */
public class PlaceIndex private constructor(
    /** The index as a map: of the tiles' representatives, and of no landmarks. */
    public val map: LocalizationMap,
) {
    /** In order. */
    public val tiles: List<TileEntry> = rows(map)

    /**
     * A tile's map, checked to be the one that the index names.
     *
     * @param number of the tile. @param source the bytes of its file.
     * @throws MapFormatException they are damaged, or another version.
     */
    public fun read(number: Int, source: ByteSource): LocalizationMap =
        LocalizationMap.read(source, "the tile ${tiles[number].name}").also { check(number, it) }

    /**
     * Checks that a map is the tile that the index names, by its size, head and number of images: the head holds the
     * checksums of all that is in it, so no more need be read. Whoever has all bytes may compare [TileEntry.sha256] too.
     *
     * @throws MapFormatException it is another version.
     */
    public fun check(number: Int, tile: LocalizationMap) {
        val entry = tiles[number]
        val same = tile.file.size == entry.bytes && tile.file.headChecksum == entry.headChecksum &&
            tile.meta.imageCount == entry.images
        if (!same) {
            throw MapFormatException(
                "the tile ${entry.name} is not the one that the index names, but another version",
                "get index and tiles again; if that does not help, make the place again with `hfnet-map tile`",
            )
        }
    }

    public companion object {
        /** Of an index's file. */
        public const val FILE_NAME: String = "index.hfmap"
        private const val ROW = 104
        private const val MAX_TILES = 1 shl 16

        /** Maps a file into memory. Throws [MapFormatException]: missing or damaged; [MismatchException]: no index. */
        @JvmStatic
        public fun open(path: File): PlaceIndex = of(LocalizationMap.open(path))

        /** Whether a map is the index of a place. */
        @JvmStatic
        public fun isIndex(map: LocalizationMap): Boolean = map.file.has(Section.PLACE_TILES)

        /** Of a map. Throws [MismatchException]: it is no index; [MapFormatException]: it is damaged. */
        @JvmStatic
        public fun of(map: LocalizationMap): PlaceIndex = PlaceIndex(map)

        private fun rows(map: LocalizationMap): List<TileEntry> {
            val file = map.file
            if (!isIndex(map)) throw MismatchException("${file.name} is a map, and no index of tiles", "name $FILE_NAME")
            val length = file.length(Section.PLACE_TILES)
            if (length !in 1..MAX_TILES.toLong() * ROW || length % ROW != 0L) {
                throw file.fail("PLACE_TILES has $length bytes")
            }
            val rows = file.use(Section.PLACE_TILES)
            val count = (length / ROW).toInt()
            val first = LongArray(count + 1) { if (it < count) rows.uint(ROW * it + 52) else map.meta.imageCount }
            if (first[0] != 0L || (0 until count).any { first[it] >= first[it + 1] }) {
                throw file.fail("a tile of PLACE_TILES has no images in the index")
            }
            val tiles = List(count) { i ->
                val at = ROW * i
                fun corner(from: Int) = DoubleArray(3) { rows.getDouble(at + from + 8 * it) }
                val hash = StringBuilder()
                for (k in 0 until 32) {
                    val byte = rows.get(at + k).toInt()
                    hash.append(Character.forDigit(byte shr 4 and 15, 16)).append(Character.forDigit(byte and 15, 16))
                }
                TileEntry(
                    hash.toString(), rows.getLong(at + 32), rows.uint(at + 40), rows.uint(at + 44), rows.uint(at + 48),
                    first[i].toInt() until first[i + 1].toInt(), corner(56), corner(80),
                )
            }
            for (tile in tiles) {
                val finite = (0 until 3).all { tile.low[it] >= -Double.MAX_VALUE && tile.high[it] <= Double.MAX_VALUE }
                if (!finite || !(0 until 3).all { tile.low[it] <= tile.high[it] }) {
                    throw file.fail("the box of a tile in PLACE_TILES is none")
                }
                val shown = tile.representatives.last - tile.representatives.first + 1L
                if (tile.core < shown || tile.images < tile.core) {
                    throw file.fail("a tile of PLACE_TILES has fewer images than the index shows of it")
                }
            }
            if (tiles.any { it.bytes < 0 } || tiles.distinctBy { it.sha256 }.size < count) {
                throw file.fail("PLACE_TILES names a tile twice, or one of impossible size")
            }
            return tiles
        }
    }
}
