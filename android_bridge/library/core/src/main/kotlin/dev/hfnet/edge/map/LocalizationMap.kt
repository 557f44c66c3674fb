package dev.hfnet.edge.map

import dev.hfnet.edge.MapFormatException
import dev.hfnet.edge.Memory
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.Pose
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/**
 * A place (SPEC). Numbers of images and landmarks are their rows. Threads may share it; it reads what it is asked for,
 * and checks that then.
 *
 * Every method throws [MapFormatException] where the map is damaged.
 */
public class LocalizationMap private constructor(internal val file: MapBytes) {
    /** What the map says of itself. */
    public val meta: Meta = Meta.of(file)

    /** Of the landmarks' descriptors. */
    public val codec: Codec = Codec.of(
        file, meta.codec, meta.localDim, meta.codeDim, meta.subspaces,
        Section.PROJECTION, Section.THRESHOLDS, Section.CODEBOOK,
    )

    /** Of the landmarks' hypercolumns; null: the map has none. */
    public val hypercolumnCodec: Codec? = if (meta.hypercolumnDim == 0) null else Codec.of(
        file, meta.hypercolumnCodec, meta.hypercolumnDim, meta.hypercolumnCodeDim, meta.hypercolumnSubspaces,
        Section.HYPERCOLUMN_PROJECTION, Section.HYPERCOLUMN_THRESHOLDS, Section.HYPERCOLUMN_CODEBOOK,
    )

    /** M. */
    public val imageCount: Int = count(meta.imageCount, "images")

    /** L. */
    public val landmarkCount: Int = count(meta.landmarkCount, "landmarks")

    private val globalProjection: ByteArray?

    init {
        val landmarks = meta.landmarkCount
        if ((meta.globalDim < meta.extractorGlobalDim) != file.has(Section.GLOBAL_PROJECTION)) {
            throw file.fail("GLOBAL_PROJECTION is missing, or projects to as many dimensions")
        }
        globalProjection = if (!file.has(Section.GLOBAL_PROJECTION)) null else {
            file.shaped(Section.GLOBAL_PROJECTION, meta.globalDim.toLong() * meta.extractorGlobalDim)
            file.use(Section.GLOBAL_PROJECTION).toBytes()
        }
        file.length(Section.IMAGE_NAMES)
        file.length(Section.OBSERVATION_LISTS)
        file.shaped(Section.IMAGE_POSES, POSE * meta.imageCount)
        file.shaped(Section.GLOBAL_DESCRIPTORS, meta.imageCount * meta.globalDim)
        file.shaped(Section.OBSERVATION_OFFSETS, 4 * meta.imageCount + 4)
        file.shaped(Section.TILES, Tiles.BYTES * ((landmarks + 255) / 256))
        file.shaped(Section.LANDMARK_POSITIONS, 6 * landmarks)
        file.shaped(Section.DESCRIPTORS, meta.descriptorCount * codec.rowBytes)
        if (meta.countBits != 0) file.shaped(Section.DESCRIPTOR_COUNTS, (landmarks * meta.countBits + 7) / 8)
        hypercolumnCodec?.let { file.shaped(Section.HYPERCOLUMNS, landmarks * it.rowBytes) }
    }

    /** M names. */
    public val imageNames: List<String> by lazy {
        val bytes = file.use(Section.IMAGE_NAMES)
        val text = try {
            Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT).decode(bytes).toString()
        } catch (e: CharacterCodingException) {
            throw file.fail("IMAGE_NAMES is not UTF-8", e)
        }
        val names = text.split('\n')
        if (names.size != imageCount + 1 || names.last() != "") {
            throw file.fail("IMAGE_NAMES holds ${names.size - 1} names, META says $imageCount")
        }
        if (names.any { name -> name.any { it < ' ' } }) throw file.fail("an image's name holds control characters")
        names.dropLast(1)
    }

    /** cam_from_world of a reference image: quaternion w, x, y, z and translation, seven numbers. */
    public fun pose(image: Int): DoubleArray {
        val row = file.use(Section.IMAGE_POSES, POSE * image.toLong(), POSE.toInt())
        val pose = DoubleArray(7) { row.getDouble(8 * it) }
        if (!pose.all { Math.abs(it) <= Double.MAX_VALUE }) throw file.fail("the pose of image $image is not finite")
        var square = 0.0
        for (i in 0 until 4) {
            val part = pose[i].coerceIn(-2.0, 2.0)
            square += part * part
        }
        if (Math.abs(Math.sqrt(square) - 1) > 1e-6) throw file.fail("the quaternion of image $image is not of unit length")
        return pose
    }

    internal fun camFromWorld(image: Int): Pose = pose(image).let { Pose(it.copyOf(4), it.copyOfRange(4, 7)) }

    /** The landmarks that a reference image observes, rising. */
    public fun observed(image: Int): IntArray {
        val memory = Memory()
        val count = observed(image, memory, "observed", 0)
        return memory.ints("observed", count).copyOf(count)
    }

    /** How many they are; they are put into the array of this [name] in [memory], from [start] on. */
    internal fun observed(image: Int, memory: Memory, name: String, start: Int): Int {
        val offsets = memory.bytes("observed: offsets", 8)
        file.use(Section.OBSERVATION_OFFSETS, 4L * image, 8, offsets)
        val begin = offsets.uint(0)
        val end = offsets.uint(4)
        if (begin > end || end > file.length(Section.OBSERVATION_LISTS) || end - begin > Int.MAX_VALUE) {
            throw file.fail("a list of observed landmarks lies past the end")
        }
        val length = (end - begin).toInt()
        val list = memory.bytes("observed: list", length)
        file.use(Section.OBSERVATION_LISTS, begin, length, list)
        return ObservationList.decode(list, length, meta.landmarkCount, file, memory, name, start)
    }

    /** The position of a landmark relative to the origin, x, y, z. */
    public fun position(landmark: Int): DoubleArray =
        DoubleArray(3).also { Tiles(file, meta, Memory()).position(landmark, it, 0) }

    /** Positions of the first [count] of these [landmarks], x, y, z, one after the other in [memory] by this [name]. */
    internal fun positions(landmarks: IntArray, count: Int, memory: Memory, name: String): DoubleArray {
        val out = memory.doubles(name, 3 * count)
        val tiles = Tiles(file, meta, memory)
        for (i in 0 until count) tiles.position(landmarks[i], out, 3 * i)
        return out
    }

    /** The positions of landmarks, three numbers each. */
    internal fun positions(landmarks: IntArray): DoubleArray = positions(landmarks, landmarks.size, Memory(), "positions")

    /** Centres relative to the origin, and viewing directions, of the reference images. */
    internal val views: Views by lazy {
        val centers = DoubleArray(3 * imageCount)
        val axes = DoubleArray(3 * imageCount)
        for (image in 0 until imageCount) {
            val pose = camFromWorld(image)
            val center = pose.center
            for (axis in 0 until 3) {
                centers[3 * image + axis] = center[axis] - origin[axis]
                axes[3 * image + axis] = pose.r[6 + axis]
            }
        }
        Views(centers, axes)
    }

    internal val origin get() = doubleArrayOf(meta.originX, meta.originY, meta.originZ)

    /** Points relative to the origin, in the world. */
    internal fun inWorld(xyz: DoubleArray): DoubleArray {
        val from = origin
        return DoubleArray(xyz.size) { xyz[it] + from[it % 3] }
    }

    /** cam_from_world of a pose that was found among points relative to the origin. */
    internal fun fromWorld(pose: Pose): Pose {
        val from = origin
        val t = pose.translation
        return Pose(
            pose.quaternion,
            DoubleArray(3) { t[it] - (pose.r[3 * it] * from[0] + pose.r[3 * it + 1] * from[1] + pose.r[3 * it + 2] * from[2]) },
        )
    }

    /** Numbers of a landmark's descriptors. */
    public fun rows(landmark: Int): LongRange {
        val tiles = Tiles(file, meta, Memory())
        return tiles.firstRow(landmark) until tiles.endOfRows(landmark)
    }

    /** Decoded descriptors of landmarks, by landmark. */
    internal fun descriptors(landmarks: IntArray): Described = descriptors(landmarks, landmarks.size, Memory())

    /** Decoded descriptors of the first [count] of these [landmarks], rising, in [memory]. */
    internal fun descriptors(landmarks: IntArray, count: Int, memory: Memory): Described {
        val tiles = Tiles(file, meta, memory)
        val ends = memory.longs("descriptors: ends", 2 * count) // of each landmark's rows: the first, and after the last
        var total = 0L
        for (i in 0 until count) {
            ends[2 * i] = tiles.firstRow(landmarks[i])
            ends[2 * i + 1] = tiles.endOfRows(landmarks[i])
            total += ends[2 * i + 1] - ends[2 * i]
        }
        if (total * codec.dim > Int.MAX_VALUE) throw file.fail("a place has $total descriptors")
        val owners = memory.ints("descriptors: owners", total.toInt())
        val vectors = memory.bytes("descriptors: decoded", total.toInt() * codec.dim)
        val stored = if (codec.isPlain) vectors else memory.bytes("descriptors: stored", total.toInt() * codec.rowBytes)
        var row = 0
        var i = 0
        while (i < count) {
            val first = ends[2 * i]
            var end = first
            val start = row
            while (i < count && ends[2 * i] == end) { // landmarks whose rows follow one another are read at once
                end = ends[2 * i + 1]
                while (row - start < end - first) owners[row++] = i
                i++
            }
            file.use(
                Section.DESCRIPTORS, first * codec.rowBytes, (row - start) * codec.rowBytes, stored, start * codec.rowBytes,
            )
        }
        if (!codec.isPlain) for (k in 0 until row) codec.decode(stored, k * codec.rowBytes, vectors, k * codec.dim)
        return Described(vectors, owners, codec.dim, row)
    }

    /** Decoded hypercolumns of landmarks, (N, K') row by row. Throws [MismatchException]: the map has none. */
    public fun hypercolumns(landmarks: IntArray): ByteArray {
        val codec = hypercolumnCodec ?: throw MismatchException("the map has no hypercolumns", "build it with them")
        val out = ByteArray(landmarks.size * codec.dim)
        for (i in landmarks.indices) {
            val stored = file.use(Section.HYPERCOLUMNS, landmarks[i].toLong() * codec.rowBytes, codec.rowBytes).toBytes()
            codec.decode(stored, 0, out, i * codec.dim)
        }
        return out
    }

    /** What a query's global descriptor, E numbers, is compared as: G numbers. */
    public fun globalCompared(descriptor: ByteArray): ByteArray {
        val p = globalProjection ?: return descriptor
        return ByteArray(meta.globalDim) { i ->
            round127(dot(p, i * meta.extractorGlobalDim, descriptor, 0, meta.extractorGlobalDim))
        }
    }

    /** The global descriptors of all reference images, (M, G) row by row. */
    internal val globalDescriptors: ByteArray by lazy { file.use(Section.GLOBAL_DESCRIPTORS).toBytes() }

    /** Checks everything now that is otherwise checked as it is used. Throws [MapFormatException]. */
    public fun checkAll() {
        file.checkAll()
        if (imageNames.toSet().size != imageCount) throw file.fail("image names repeat")
        Calibration.of(this)
        Georeference.of(this)
        try {
            if (file.sections.keys.any { it in Section.RANDOM_TREES..Section.TREE_LANDMARKS }) RandomTrees.of(this)
            if (file.has(Section.SCENE_TREE) || file.has(Section.SCENE_LANDMARKS)) SceneTree.of(this)
        } catch (e: MismatchException) { // trees of another map, or not all of one
            throw MapFormatException(e.problem, e.remedy, e)
        }
        var observations = 0L
        for (image in 0 until imageCount) {
            pose(image)
            observations += observed(image).size
        }
        val offsets = file.use(Section.OBSERVATION_OFFSETS)
        val last = offsets.uint(4 * imageCount)
        if (offsets.uint(0) != 0L || last != file.length(Section.OBSERVATION_LISTS)) {
            throw file.fail("OBSERVATION_OFFSETS does not cover OBSERVATION_LISTS")
        }
        if (observations != meta.observationCount) throw file.fail("$observations observations, not ${meta.observationCount}")
        var row = 0L
        val tiles = Tiles(file, meta, Memory())
        val position = DoubleArray(3)
        for (landmark in 0 until landmarkCount) {
            tiles.position(landmark, position, 0)
            if (tiles.firstRow(landmark) != row) throw file.fail("descriptors do not follow one another")
            row = tiles.endOfRows(landmark)
        }
        if (meta.countBits != 0 && row != meta.descriptorCount) throw file.fail("$row descriptors, not ${meta.descriptorCount}")
    }

    private fun count(number: Long, what: String): Int {
        if (number > Int.MAX_VALUE) throw file.fail("$number $what are more than this reader takes")
        return number.toInt()
    }

    public companion object {
        private const val POSE = 56L

        /** Maps a file into memory. Throws [MapFormatException]: missing, truncated, damaged, or no map. */
        @JvmStatic
        public fun open(path: File): LocalizationMap =
            try {
                read(MappedFile(path), path.path)
            } catch (e: IOException) {
                throw MapFormatException("cannot read the map $path: ${e.message}", "check its name", e)
            }

        /** Reads a map from wherever its bytes are; [name] is for messages. */
        @JvmStatic
        @JvmOverloads
        public fun read(source: ByteSource, name: String = "the map"): LocalizationMap =
            LocalizationMap(MapBytes(source, name))
    }
}

/** M centres and directions, three numbers each. */
internal class Views(val centers: DoubleArray, val axes: DoubleArray)

/** Decoded descriptors, (R, [dim]) row by row, and of each the place of its landmark among those asked for. */
internal class Described(
    val vectors: ByteArray,
    val owners: IntArray,
    val dim: Int,
    /** R. */
    val size: Int = owners.size,
)

internal fun ByteBuffer.uint(at: Int): Long = getInt(at).toLong() and 0xffffffffL

internal fun ByteArray.uint(at: Int): Long = ushort(at) or (ushort(at + 2) shl 16)

internal fun ByteArray.ushort(at: Int): Long = (this[at].toLong() and 0xff) or ((this[at + 1].toLong() and 0xff) shl 8)
