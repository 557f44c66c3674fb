package dev.hfnet.edge.map

import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel

/**
 * Where the bytes of a map come from: a mapped file, an asset, a range of HTTP. Threads may share it.
 *
 * A source whose bytes change while it is read gives unspecified results, never memory outside of it.
 */
public interface ByteSource {
    /** Bytes in all. */
    public val size: Long

    /**
     * Bytes [offset] to [offset] + [length] - 1, which are inside; little-endian, position 0. The caller does not write.
     *
     * @throws IOException they cannot be read.
     */
    @Throws(IOException::class)
    public fun bytes(offset: Long, length: Int): ByteBuffer
}

/** Bytes in memory. */
public class ByteArraySource(private val content: ByteArray) : ByteSource {
    override val size: Long get() = content.size.toLong()

    override fun bytes(offset: Long, length: Int): ByteBuffer =
        ByteBuffer.wrap(content, offset.toInt(), length).slice().order(ByteOrder.LITTLE_ENDIAN)

    internal fun copy(offset: Long, length: Int, out: ByteArray, at: Int) {
        System.arraycopy(content, offset.toInt(), out, at, length)
    }
}

/** Copies bytes, which are inside, into [out] at [at]; of the library's own sources without making objects. */
@Throws(IOException::class)
internal fun ByteSource.copy(offset: Long, length: Int, out: ByteArray, at: Int) {
    when (this) {
        is ByteArraySource -> copy(offset, length, out, at)
        is MappedFile -> copy(offset, length, out, at)
        else -> bytes(offset, length).get(out, at, length)
    }
}

/** A buffer's bytes from its position to its limit, an asset that is mapped for example; shorter than 2 GiB. */
public class ByteBufferSource(content: ByteBuffer) : ByteSource {
    private val content: ByteBuffer = content.slice()
    override val size: Long get() = content.capacity().toLong()

    override fun bytes(offset: Long, length: Int): ByteBuffer {
        val part = content.duplicate()
        part.position(offset.toInt()).limit(offset.toInt() + length)
        return part.slice().order(ByteOrder.LITTLE_ENDIAN)
    }
}

/** A file mapped into memory, in parts of a gigabyte. Closing it leaves the mapping to the garbage collector. */
public class MappedFile @Throws(IOException::class) constructor(file: File) : ByteSource, Closeable {
    private val parts: List<ByteBuffer>
    private val ofThread = object : ThreadLocal<List<ByteBuffer>>() { // a buffer that is copied from has a position
        override fun initialValue() = parts.map { it.duplicate() }
    }
    override val size: Long

    init {
        RandomAccessFile(file, "r").use { opened ->
            size = opened.length()
            parts = (0 until size step PART).map { start ->
                opened.channel.map(FileChannel.MapMode.READ_ONLY, start, minOf(PART, size - start))
            }
        }
    }

    override fun bytes(offset: Long, length: Int): ByteBuffer {
        if (length == 0) return ByteBuffer.allocate(0).order(ByteOrder.LITTLE_ENDIAN)
        val part = parts[(offset / PART).toInt()].duplicate()
        val at = (offset % PART).toInt()
        if (length <= part.limit() - at) {
            part.position(at).limit(at + length)
            return part.slice().order(ByteOrder.LITTLE_ENDIAN)
        }
        val copied = ByteBuffer.allocate(length).order(ByteOrder.LITTLE_ENDIAN)
        val first = part.limit() - at
        copied.put(bytes(offset, first)).put(bytes(offset + first, length - first)).flip()
        return copied
    }

    internal fun copy(offset: Long, length: Int, out: ByteArray, at: Int) {
        var from = offset
        while (from < offset + length) {
            val part = ofThread.get()[(from / PART).toInt()]
            part.position((from % PART).toInt())
            val some = minOf(part.remaining().toLong(), offset + length - from).toInt()
            part.get(out, at + (from - offset).toInt(), some)
            from += some
        }
    }

    override fun close(): Unit = Unit

    private companion object {
        const val PART = 1L shl 30
    }
}
