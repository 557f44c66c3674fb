package dev.hfnet.edge.map

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** What META says of a map (SPEC, section 5). Names and letters are the document's. */
public class Meta internal constructor(
    public val generator: String,
    public val architecture: String,
    public val weightsHash: String,
    public val precision: String,
    public val localDim: Int,
    public val globalDim: Int,
    public val imageCount: Long,
    public val landmarkCount: Long,
    public val observationCount: Long,
    public val originX: Double,
    public val originY: Double,
    public val originZ: Double,
    public val extractorGlobalDim: Int,
    public val codec: String,
    public val codeDim: Int,
    public val subspaces: Int,
    public val countBits: Int,
    public val descriptorCount: Long,
    public val globalWeightsHash: String,
    public val hypercolumnDim: Int,
    public val hypercolumnCodec: String,
    public val hypercolumnCodeDim: Int,
    public val hypercolumnSubspaces: Int,
    public val localRole: String,
) {
    /** Whether a patch network describes the landmarks. */
    public val ofPatches: Boolean
        get() = localRole.ifEmpty { if (globalWeightsHash.isEmpty()) LOCAL else PATCH } == PATCH

    internal companion object {
        const val MAX_BYTES = 65536L
        const val MAX_DIM = 1040L
        const val MAX_GLOBAL_DIM = 4096L
        const val MAX_ORIGIN = 1e15
        const val LOCAL = "local_descriptors"
        const val PATCH = "patch_descriptors"

        fun of(file: MapBytes): Meta {
            if (file.length(Section.META) > MAX_BYTES) throw file.fail("META has ${file.length(Section.META)} bytes")
            val t = Table(file.use(Section.META), file)
            val local = t.uint(4)
            val global = t.uint(5)
            val extractor = t.uint(12)
            val hypercolumn = t.uint(20)
            val origin = doubleArrayOf(t.double(9), t.double(10), t.double(11))
            val bits = t.ubyte(16)
            val role = t.string(24)
            fun require(condition: Boolean, what: String) {
                if (!condition) throw file.fail("META: $what")
            }
            require(local in 1..MAX_DIM && global in 1..extractor && extractor <= MAX_GLOBAL_DIM, "dimensions")
            require(hypercolumn <= MAX_DIM, "dimensions of hypercolumns")
            require(origin.all { Math.abs(it) < MAX_ORIGIN }, "the origin is not finite, or beyond every place")
            require(bits == 0 || bits == 2 || bits == 16, "count_bits is $bits")
            require(role.isEmpty() || role == LOCAL || role == PATCH, "local_role is $role")
            val landmarks = t.uint(7)
            val descriptors = t.uint(17)
            require(bits != 0 || descriptors == landmarks, "$descriptors descriptors of $landmarks landmarks")
            return Meta(
                t.string(0), t.string(1), t.string(2), t.string(3), local.toInt(), global.toInt(), t.uint(6), landmarks,
                t.uint(8), origin[0], origin[1], origin[2], extractor.toInt(), t.string(13), t.capped(14), t.capped(15),
                bits, descriptors, t.string(19), hypercolumn.toInt(), t.string(21), t.capped(22), t.capped(23), role,
            )
        }
    }
}

/** A FlatBuffers table, read by hand with every access inside the buffer (SPEC, section 5). */
private class Table(private val data: ByteBuffer, private val file: MapBytes) {
    private val table: Long = u4(0)
    private val vtable: Long = table - i4(table)
    private val vtableSize: Int = u2(vtable)

    fun uint(field: Int): Long = at(field)?.let { u4(it) } ?: 0L

    /** A number that its user bounds far below this. */
    fun capped(field: Int): Int = minOf(uint(field), 1L shl 30).toInt()

    fun ubyte(field: Int): Int = at(field)?.let { data.get(inside(it, 1)).toInt() and 0xff } ?: 0

    fun double(field: Int): Double = at(field)?.let { data.getDouble(inside(it, 8)) } ?: 0.0

    fun string(field: Int): String {
        val p = at(field) ?: return ""
        val begin = p + u4(p)
        val length = u4(begin)
        val bytes = data.duplicate()
        if (length > data.limit()) throw file.fail("META: a string is longer than it")
        val from = inside(begin + 4, length.toInt())
        bytes.position(from).limit(from + length.toInt())
        val text = try {
            Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT).decode(bytes).toString()
        } catch (e: CharacterCodingException) {
            throw file.fail("META: a string is not UTF-8", e)
        }
        if (!text.all { it in ' '..'~' }) throw file.fail("META: a string is not printable ASCII")
        return text
    }

    private fun at(field: Int): Long? {
        val place = 4 + 2 * field
        if (place + 2 > vtableSize) return null
        val offset = u2(vtable + place)
        return if (offset == 0) null else table + offset
    }

    private fun u4(at: Long): Long = data.getInt(inside(at, 4)).toLong() and 0xffffffffL

    private fun i4(at: Long): Long = data.getInt(inside(at, 4)).toLong()

    private fun u2(at: Long): Int = data.getShort(inside(at, 2)).toInt() and 0xffff

    private fun inside(at: Long, length: Int): Int {
        if (at < 0 || at > data.limit() - length) throw file.fail("META is no FlatBuffers table")
        return at.toInt()
    }
}
