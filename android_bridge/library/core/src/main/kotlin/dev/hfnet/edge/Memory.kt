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

    fun booleans(name: String, size: Int): BooleanArray =
        array(name, size, BooleanArray::size, BooleanArray::copyOf, ::BooleanArray)

    fun bytes(name: String, size: Int): ByteArray = array(name, size, ByteArray::size, ByteArray::copyOf, ::ByteArray)

    fun shorts(name: String, size: Int): ShortArray =
        array(name, size, ShortArray::size, ShortArray::copyOf, ::ShortArray)

    fun ints(name: String, size: Int): IntArray = array(name, size, IntArray::size, IntArray::copyOf, ::IntArray)

    fun longs(name: String, size: Int): LongArray = array(name, size, LongArray::size, LongArray::copyOf, ::LongArray)

    fun floats(name: String, size: Int): FloatArray =
        array(name, size, FloatArray::size, FloatArray::copyOf, ::FloatArray)

    fun doubles(name: String, size: Int): DoubleArray =
        array(name, size, DoubleArray::size, DoubleArray::copyOf, ::DoubleArray)

    private inline fun <reified A : Any> array(
        name: String, asked: Int, size: (A) -> Int, longer: (A, Int) -> A, first: (Int) -> A,
    ): A {
        val array = kept[name] as A? ?: return first(asked).also { kept[name] = it }
        return if (size(array) >= asked) array else longer(array, grown(size(array), asked)).also { kept[name] = it }
    }

    /** A first array is as long as asked for; one that grows, half as long again at least. */
    private fun grown(size: Int, asked: Int): Int = maxOf(asked, minOf(size + size / 2L, Int.MAX_VALUE - 8L).toInt())
}
