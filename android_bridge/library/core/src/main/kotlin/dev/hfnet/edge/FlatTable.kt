package dev.hfnet.edge

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** A FlatBuffers table, read by hand with every access inside the buffer, which is little-endian. */
internal class FlatTable private constructor(
    private val data: ByteBuffer,
    private val table: Long,
    private val damaged: (String, Throwable?) -> HFNetEdgeException,
) {
    private val vtable: Long = table - i4(table)
    private val vtableSize: Int = u2(vtable)

    fun has(field: Int): Boolean = at(field) != null

    fun uint(field: Int): Long = at(field)?.let { u4(it) } ?: 0L

    fun int(field: Int): Int = at(field)?.let { i4(it).toInt() } ?: 0

    fun ubyte(field: Int): Int = at(field)?.let { data.get(inside(it, 1)).toInt() and 0xff } ?: 0

    fun float(field: Int): Float = at(field)?.let { data.getFloat(inside(it, 4)) } ?: 0f

    fun double(field: Int): Double = at(field)?.let { data.getDouble(inside(it, 8)) } ?: 0.0

    /** "" where there is none; [most]: bytes. */
    fun string(field: Int, most: Int): String = at(field)?.let { string(it, most) } ?: ""

    /** A string of a vector of them. */
    fun string(field: Int, index: Int, most: Int): String = string(vector(field, 4).first + 4L * index, most)

    private fun string(at: Long, most: Int): String {
        val (begin, length) = vector(at, 1)
        if (length > most) throw damaged("a string is longer than $most bytes", null)
        val bytes = data.duplicate()
        bytes.position(begin).limit(begin + length)
        return try {
            Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT).decode(bytes).toString()
        } catch (e: CharacterCodingException) {
            throw damaged("a string is not UTF-8", e)
        }
    }

    /** Where the elements of a vector or a string begin, and how many there are; [size]: bytes of one. */
    fun vector(field: Int, size: Int): Pair<Int, Int> = at(field)?.let { vector(it, size) } ?: Pair(0, 0)

    private fun vector(at: Long, size: Int): Pair<Int, Int> {
        val begin = at + u4(at)
        val length = u4(begin)
        if (length > data.limit() / size) throw damaged("a vector is longer than it", null)
        return Pair(inside(begin + 4, length.toInt() * size), length.toInt())
    }

    /** A table of a vector of them. */
    fun table(field: Int, index: Long): FlatTable {
        val (begin, length) = vector(field, 4)
        if (index >= length) throw damaged("a vector has $length elements, not ${index + 1}", null)
        val p = begin + 4 * index
        return FlatTable(data, p + u4(p), damaged)
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
        if (at < 0 || at > data.limit() - length) throw damaged("it is no FlatBuffers table", null)
        return at.toInt()
    }

    companion object {
        /** The root table of what begins at [start]. [damaged] makes the exception of what is wrong. */
        fun root(data: ByteBuffer, start: Int, damaged: (String, Throwable?) -> HFNetEdgeException): FlatTable {
            if (start < 0 || start > data.limit() - 4) throw damaged("it is no FlatBuffers table", null)
            val offset = data.getInt(start).toLong() and 0xffffffffL
            return FlatTable(data, start + offset, damaged)
        }
    }
}
