package dev.hfnet.edge.map

import dev.hfnet.edge.Memory

/**
 * Vectors of int8, component by component, for their products with one vector after the other. Loops over 16 bits are
 * those that processors run fastest; products wrap around in them on the way, and are right in the end where they fit.
 */
internal class Columns(private val memory: Memory, components: Int) {
    private val columns = arrayOfNulls<ShortArray>(components)

    /** Vectors there are. */
    var count = 0
        private set

    private var filled = 0 // components of them that are here
    private var vectors = ByteArray(0)
    private var first = 0
    private var dim = 0

    /** Takes [count] vectors of [dim] components, one after the other from vector [first]. */
    fun take(vectors: ByteArray, dim: Int, first: Int, count: Int) {
        this.vectors = vectors
        this.dim = dim
        this.first = first
        this.count = count
        filled = 0
    }

    /** Adds products of the vectors' components [from] until [to] with those of the one at [at] of [other]. */
    fun add(other: ByteArray, at: Int, from: Int, to: Int, sums: ShortArray) {
        while (filled < to) fill(filled++)
        var k = from
        while (k + 4 <= to) {
            four(
                sums, columns[k]!!, columns[k + 1]!!, columns[k + 2]!!, columns[k + 3]!!, count, other[at + k].toInt(),
                other[at + k + 1].toInt(), other[at + k + 2].toInt(), other[at + k + 3].toInt(),
            )
            k += 4
        }
        while (k < to) {
            one(sums, columns[k]!!, count, other[at + k].toInt())
            k++
        }
    }

    /** Products of all with another vector. */
    fun products(other: ByteArray, at: Int, out: IntArray) {
        val sums = memory.shorts("columns: sums", count)
        sums.fill(0, 0, count)
        add(other, at, 0, dim, sums)
        for (i in 0 until count) out[i] = sums[i].toInt()
    }

    private fun fill(component: Int) {
        val column = memory.shorts(NAMES[component], count)
        columns[component] = column
        var at = first * dim + component
        for (i in 0 until count) {
            column[i] = vectors[at].toShort()
            at += dim
        }
    }

    internal companion object {
        private val NAMES = Array(Meta.MAX_DIM.toInt()) { "columns: $it" }

        private fun four(
            sums: ShortArray, a: ShortArray, b: ShortArray, c: ShortArray, d: ShortArray,
            n: Int, p: Int, q: Int, r: Int, s: Int,
        ) {
            for (i in 0 until n) sums[i] = (sums[i] + p * a[i] + q * b[i] + r * c[i] + s * d[i]).toShort()
        }

        /** Whether products of (N, dim) and (M, dim) vectors fit into 16 bits whatever they are. */
        fun fits(a: ByteArray, n: Int, b: ByteArray, m: Int, dim: Int): Boolean =
            longest(a, n, dim).toLong() * longest(b, m, dim) <= Short.MAX_VALUE.toLong() * Short.MAX_VALUE

        private fun longest(vectors: ByteArray, n: Int, dim: Int): Int {
            var most = 0
            for (i in 0 until n) most = maxOf(most, dot(vectors, i * dim, vectors, i * dim, dim))
            return most
        }

        /** Adds a column times a number. */
        fun one(sums: ShortArray, a: ShortArray, n: Int, p: Int) {
            for (i in 0 until n) sums[i] = (sums[i] + p * a[i]).toShort()
        }
    }
}
