package dev.hfnet.edge.map

import dev.hfnet.edge.MapFormatException
import dev.hfnet.edge.MismatchException
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
        file.shaped(Section.TILES, TILE * ((landmarks + 255) / 256))
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

    /** The landmarks that a reference image observes, rising. */
    public fun observed(image: Int): IntArray {
        val offsets = file.use(Section.OBSERVATION_OFFSETS, 4L * image, 8)
        val begin = offsets.uint(0)
        val end = offsets.uint(4)
        if (begin > end || end > file.length(Section.OBSERVATION_LISTS) || end - begin > Int.MAX_VALUE) {
            throw file.fail("a list of observed landmarks lies past the end")
        }
        val list = file.use(Section.OBSERVATION_LISTS, begin, (end - begin).toInt())
        return ObservationList.decode(list, meta.landmarkCount, file)
    }

    /** The position of a landmark relative to the origin, x, y, z. */
    public fun position(landmark: Int): DoubleArray {
        val tile = tile(landmark)
        val step = tile.getFloat(12).toDouble()
        val steps = file.use(Section.LANDMARK_POSITIONS, 6L * landmark, 6)
        return DoubleArray(3) { axis ->
            tile.getFloat(4 * axis).toDouble() + (steps.getShort(2 * axis).toInt() and 0xffff) * step
        }
    }

    /** Numbers of a landmark's descriptors. */
    public fun rows(landmark: Int): LongRange {
        if (meta.countBits == 0) return landmark.toLong()..landmark.toLong()
        var first = tile(landmark).uint(16)
        for (before in landmark / 256 * 256 until landmark) first += descriptorCount(before)
        val last = first + descriptorCount(landmark) - 1
        if (last >= meta.descriptorCount) throw file.fail("a descriptor past the last")
        return first..last
    }

    /** Decoded descriptors of landmarks, by landmark. */
    internal fun descriptors(landmarks: IntArray): Described {
        val ranges = landmarks.map { rows(it) }
        val total = ranges.sumOf { it.last - it.first + 1 }
        if (total * codec.dim > Int.MAX_VALUE) throw file.fail("a place has $total descriptors")
        val vectors = ByteArray(total.toInt() * codec.dim)
        val owners = IntArray(total.toInt())
        var row = 0
        for (i in ranges.indices) {
            val count = (ranges[i].last - ranges[i].first + 1).toInt()
            val stored = file.use(Section.DESCRIPTORS, ranges[i].first * codec.rowBytes, count * codec.rowBytes).toBytes()
            for (k in 0 until count) {
                codec.decode(stored, k * codec.rowBytes, vectors, row * codec.dim)
                owners[row++] = i
            }
        }
        return Described(vectors, owners, codec.dim)
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
        for (landmark in 0 until landmarkCount) {
            position(landmark)
            if (meta.countBits == 0) continue
            if (landmark % 256 == 0 && tile(landmark).uint(16) != row) throw file.fail("descriptors do not follow one another")
            row += descriptorCount(landmark)
        }
        if (meta.countBits != 0 && row != meta.descriptorCount) throw file.fail("$row descriptors, not ${meta.descriptorCount}")
    }

    private fun descriptorCount(landmark: Int): Int =
        if (meta.countBits == 16) {
            (file.use(Section.DESCRIPTOR_COUNTS, 2L * landmark, 2).getShort(0).toInt() and 0xffff) + 1
        } else {
            (file.use(Section.DESCRIPTOR_COUNTS, landmark / 4L, 1).get(0).toInt() shr 2 * (landmark % 4) and 3) + 1
        }

    private fun tile(landmark: Int): ByteBuffer {
        val tile = file.use(Section.TILES, TILE * (landmark / 256), TILE.toInt())
        for (i in 0 until 4) {
            if (!(Math.abs(tile.getFloat(4 * i)) <= Float.MAX_VALUE)) throw file.fail("tile ${landmark / 256} is not finite")
        }
        return tile
    }

    private fun count(number: Long, what: String): Int {
        if (number > Int.MAX_VALUE) throw file.fail("$number $what are more than this reader takes")
        return number.toInt()
    }

    public companion object {
        private const val POSE = 56L
        private const val TILE = 20L

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

/** Decoded descriptors, (R, [dim]) row by row, and of each the place of its landmark among those asked for. */
internal class Described(val vectors: ByteArray, val owners: IntArray, val dim: Int)

internal fun ByteBuffer.uint(at: Int): Long = getInt(at).toLong() and 0xffffffffL
