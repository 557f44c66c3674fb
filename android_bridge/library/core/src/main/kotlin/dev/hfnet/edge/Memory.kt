package dev.hfnet.edge

/**
 * Arrays that one running call works in, kept for the next, so that a query allocates next to nothing. Stages name
 * theirs.
 *
 * An array that is asked for again is the same one, with what was left in it, or a longer one that begins with that. It
 * may be longer than asked for; whoever hands on what is in it says how much that is. What lives in a memory is valid
 * until the stage that made it is called with that memory again. One thread at a time.
 */
internal class Memory {
    private val kept = HashMap<String, Any>()
    private val parts = HashMap<String, Memory>()

    /** One within it, in which names mean other arrays: for what stages leave there, and must not leave here. */
    fun part(name: String): Memory = parts[name] ?: Memory().also { parts[name] = it }

    fun booleans(name: String, size: Int): BooleanArray {
        val array = kept[name] as BooleanArray? ?: BooleanArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun bytes(name: String, size: Int): ByteArray {
        val array = kept[name] as ByteArray? ?: ByteArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun shorts(name: String, size: Int): ShortArray {
        val array = kept[name] as ShortArray? ?: ShortArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun ints(name: String, size: Int): IntArray {
        val array = kept[name] as IntArray? ?: IntArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun longs(name: String, size: Int): LongArray {
        val array = kept[name] as LongArray? ?: LongArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun floats(name: String, size: Int): FloatArray {
        val array = kept[name] as FloatArray? ?: FloatArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    fun doubles(name: String, size: Int): DoubleArray {
        val array = kept[name] as DoubleArray? ?: DoubleArray(0)
        return if (array.size >= size) array else array.copyOf(grown(array.size, size)).also { kept[name] = it }
    }

    /** A first array is as long as asked for; one that grows, half as long again at least. */
    private fun grown(size: Int, asked: Int): Int = maxOf(asked, minOf(size + size / 2L, Int.MAX_VALUE - 8L).toInt())
}
