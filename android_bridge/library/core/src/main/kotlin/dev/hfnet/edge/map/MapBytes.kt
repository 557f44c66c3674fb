package dev.hfnet.edge.map

import dev.hfnet.edge.MapFormatException
import dev.hfnet.edge.MapVersionException
import java.io.IOException
import java.nio.ByteBuffer
import java.util.BitSet
import java.util.zip.CRC32

/** Kinds of sections (SPEC, section 4). */
public object Section {
    public const val CHECKSUMS: Int = 1
    public const val META: Int = 2
    public const val IMAGE_NAMES: Int = 3
    public const val IMAGE_POSES: Int = 4
    public const val GLOBAL_PROJECTION: Int = 5
    public const val GLOBAL_DESCRIPTORS: Int = 6
    public const val OBSERVATION_OFFSETS: Int = 7
    public const val OBSERVATION_LISTS: Int = 8
    public const val TILES: Int = 9
    public const val LANDMARK_POSITIONS: Int = 10
    public const val DESCRIPTOR_COUNTS: Int = 11
    public const val PROJECTION: Int = 12
    public const val THRESHOLDS: Int = 13
    public const val CODEBOOK: Int = 14
    public const val DESCRIPTORS: Int = 15
    public const val RANDOM_TREES: Int = 16
    public const val TREE_COSTS: Int = 17
    public const val TREE_ROOTS: Int = 18
    public const val TREE_TESTS: Int = 19
    public const val TREE_CHILDREN: Int = 20
    public const val TREE_LEAVES: Int = 21
    public const val TREE_LANDMARKS: Int = 22
    public const val CALIBRATION: Int = 23
    public const val HYPERCOLUMN_PROJECTION: Int = 24
    public const val HYPERCOLUMN_THRESHOLDS: Int = 25
    public const val HYPERCOLUMN_CODEBOOK: Int = 26
    public const val HYPERCOLUMNS: Int = 27
    public const val SCENE_TREE: Int = 28
    public const val SCENE_LANDMARKS: Int = 29
    public const val GEOREFERENCE: Int = 30
    public const val PLACE_TILES: Int = 31
}

/** Where a section lies: its first byte, and how many it has. */
public class Entry internal constructor(public val offset: Long, public val length: Long)

/**
 * The sections of a map (SPEC, section 3). The head is checked here, each block of the data when it is first used.
 * Threads may share it.
 */
public class MapBytes internal constructor(private val source: ByteSource, internal val name: String) {
    /** By kind, in order. */
    public val sections: Map<Int, Entry>

    /** The minor version. */
    public val minorVersion: Int

    /** Of the file. */
    internal val size: Long

    /** Of the head, as the header says it. */
    internal val headChecksum: Long

    private val start: Long
    private val checksums: Long
    private val checked = BitSet()

    init {
        size = source.size
        if (size < HEADER) throw fail("it has $size bytes, a map has $HEADER at least")
        val header = read(0, HEADER)
        for (i in MAGIC.indices) if (header.get(i) != MAGIC[i]) throw fail("it is not a map")
        val major = header.getShort(8).toInt() and 0xffff
        minorVersion = header.getShort(10).toInt() and 0xffff
        if (major != MAJOR) {
            throw MapVersionException(
                "$name is of format $major.$minorVersion, this reads $MAJOR.x",
                "build the map again, or update the library",
            )
        }
        if (header.getLong(16) != size) throw fail("it has $size bytes, its header says ${header.getLong(16)}")
        val count = header.getInt(12)
        if (count !in 2..MAX_SECTIONS || HEADER + ROW * count > size) throw fail("its table of sections is damaged")
        val table = read(HEADER.toLong(), ROW * count)
        val found = LinkedHashMap<Int, Entry>()
        var end = (HEADER + ROW * count).toLong()
        var last = 0L
        for (i in 0 until count) {
            val kind = table.getInt(ROW * i).toLong() and 0xffffffffL
            val offset = table.getLong(ROW * i + 8)
            val length = table.getLong(ROW * i + 16)
            val right = kind > last && offset == up(end) && offset <= size && length in 0..(size - offset)
            if (!right || !zeros(end, offset)) throw fail("its table of sections is damaged")
            if (kind <= Int.MAX_VALUE) found[kind.toInt()] = Entry(offset, length)
            end = offset + length
            last = kind
        }
        val sums = found[Section.CHECKSUMS]
        if (end != size || sums == null) throw fail("its table of sections is damaged")
        sections = found
        checksums = sums.offset
        start = up(sums.offset + sums.length)
        if (start > size || sums.length != 4 * ((size - start + BLOCK - 1) / BLOCK)) throw fail("its checksums are damaged")
        val crc = CRC32()
        crc.add(0, 24)
        crc.add(28, start - 28)
        headChecksum = header.uint(24)
        if (crc.value != headChecksum) throw fail("its header is damaged (checksum)")
    }

    /** Whether there is such a section. */
    public fun has(kind: Int): Boolean = kind in sections

    /** Bytes of a section. Throws [MapFormatException]: there is none. */
    public fun length(kind: Int): Long = entry(kind).length

    /** That a section has so many bytes; otherwise throws. */
    internal fun shaped(kind: Int, length: Long) {
        if (entry(kind).length != length) throw fail("section $kind has ${entry(kind).length} bytes, not $length")
    }

    /** Part of a section, after its blocks' checksums; little-endian. Throws [MapFormatException]. */
    internal fun use(kind: Int, at: Long, length: Int): ByteBuffer = read(checked(kind, at, length), length)

    /** The same, copied into [out] at [outAt]. */
    internal fun use(kind: Int, at: Long, length: Int, out: ByteArray, outAt: Int = 0) {
        val first = checked(kind, at, length)
        try {
            source.copy(first, length, out, outAt)
        } catch (e: IOException) {
            throw unreadable(e)
        }
    }

    /** Where part of a section begins in the file, after its blocks' checksums. */
    private fun checked(kind: Int, at: Long, length: Int): Long {
        val entry = entry(kind)
        if (at < 0 || at > entry.length || length < 0 || length > entry.length - at) {
            throw fail("something lies past the end of section $kind")
        }
        check(entry.offset + at, length.toLong())
        return entry.offset + at
    }

    /** A whole section of at most 2 GiB. */
    internal fun use(kind: Int): ByteBuffer {
        val length = length(kind)
        if (length > Int.MAX_VALUE) throw fail("section $kind has $length bytes")
        return use(kind, 0, length.toInt())
    }

    /** Checks every block of every section. */
    internal fun checkAll() {
        for ((kind, entry) in sections) if (kind != Section.CHECKSUMS) check(entry.offset, entry.length)
    }

    internal fun fail(what: String, cause: Throwable? = null): MapFormatException =
        MapFormatException("$name is damaged: $what", "copy it again, or build it again", cause)

    private fun entry(kind: Int): Entry = sections[kind] ?: throw fail("section $kind is missing")

    private fun check(first: Long, length: Long) {
        if (length == 0L) return
        for (block in ((first - start) / BLOCK).toInt()..((first + length - 1 - start) / BLOCK).toInt()) {
            if (synchronized(checked) { checked.get(block) }) continue
            val begin = start + BLOCK * block
            val crc = CRC32()
            crc.add(begin, minOf(BLOCK, source.size - begin))
            val said = read(checksums + 4L * block, 4).getInt(0).toLong() and 0xffffffffL
            if (crc.value != said) throw fail("block $block does not agree with its checksum")
            synchronized(checked) { checked.set(block) }
        }
    }

    private fun CRC32.add(offset: Long, length: Long) {
        var at = offset
        while (at < offset + length) {
            val part = minOf(BUFFER, offset + length - at).toInt()
            val bytes = ByteArray(part)
            read(at, part).get(bytes)
            update(bytes, 0, part)
            at += part
        }
    }

    private fun zeros(from: Long, to: Long): Boolean {
        val padding = read(from, (to - from).toInt())
        for (i in 0 until padding.limit()) if (padding.get(i) != 0.toByte()) return false
        return true
    }

    private fun read(offset: Long, length: Int): ByteBuffer =
        try {
            source.bytes(offset, length)
        } catch (e: IOException) {
            throw unreadable(e)
        }

    private fun unreadable(e: IOException) =
        MapFormatException("$name cannot be read: ${e.message}", "check the file or the connection", e)

    internal companion object {
        const val HEADER = 64
        const val ROW = 24
        const val MAX_SECTIONS = 64
        const val MAJOR = 2
        const val BLOCK = 16384L
        const val BUFFER = 1L shl 16
        val MAGIC: ByteArray = byteArrayOf(0x48, 0x46, 0x4d, 0x41, 0x50, 0x0d, 0x0a, 0x1a)

        fun up(x: Long): Long = (x + 63) / 64 * 64
    }
}
