package dev.hfnet.edge.map

import dev.hfnet.edge.Memory

/**
 * How descriptors are stored and compared (SPEC, section 9).
 *
 * A stored row decodes to [dim] numbers, and a query's descriptor is compared as as many, by whole numbers throughout.
 */
public class Codec internal constructor(
    /** "int8", "pq" or "binary". */
    public val name: String,
    /** K: components of a decoded descriptor. */
    public val dim: Int,
    /** D: components of a query's descriptor. */
    public val queryDim: Int,
    /** C: bytes of a stored one. */
    public val rowBytes: Int,
    private val projection: ByteArray?,
    private val thresholds: IntArray?,
    private val codebook: ByteArray?,
    private val subspaces: Int,
) {
    /** Decodes the row that begins at [at] into [out] at [outAt]. */
    internal fun decode(rows: ByteArray, at: Int, out: ByteArray, outAt: Int) {
        when (name) {
            INT8 -> System.arraycopy(rows, at, out, outAt, dim)
            PQ -> {
                val width = dim / subspaces
                for (s in 0 until subspaces) {
                    val number = rows[at + s].toInt() and 0xff
                    System.arraycopy(codebook!!, (256 * s + number) * width, out, outAt + s * width, width)
                }
            }
            else -> for (j in 0 until dim) {
                out[outAt + j] = if (rows[at + (j shr 3)].toInt() shr (j and 7) and 1 == 1) 1 else -1
            }
        }
    }

    /** Whether what is stored is what it decodes to. */
    internal val isPlain: Boolean get() = name == INT8

    /** What queries' descriptors, (N, D) int8 row by row, are compared as: (N, K). The given ones where nothing changes. */
    public fun compared(descriptors: ByteArray): ByteArray {
        if (projection == null) return descriptors
        val n = descriptors.size / queryDim
        return compared(descriptors, n, Memory()).copyOf(n * dim)
    }

    /** As the other one, of the first [n], in [memory]. */
    internal fun compared(descriptors: ByteArray, n: Int, memory: Memory): ByteArray {
        val p = projection ?: return descriptors
        val out = memory.bytes("compared", n * dim)
        val products = memory.ints("compared: products", BLOCK)
        val columns = Columns(memory, queryDim)
        val short = Columns.fits(p, dim, descriptors, n, queryDim)
        for (first in 0 until n step BLOCK) {
            val count = minOf(BLOCK, n - first)
            columns.take(descriptors, queryDim, first, count)
            for (k in 0 until dim) {
                if (short) {
                    columns.products(p, k * queryDim, products)
                } else {
                    for (i in 0 until count) {
                        products[i] = dot(p, k * queryDim, descriptors, (first + i) * queryDim, queryDim)
                    }
                }
                val t = thresholds
                for (i in 0 until count) {
                    val product = products[i]
                    out[(first + i) * dim + k] = if (t == null) round127(product) else if (product > t[k]) 1 else -1
                }
            }
        }
        return out
    }

    internal companion object {
        const val INT8 = "int8"
        const val PQ = "pq"
        const val BINARY = "binary"

        /** A codec that META names, with its tables. Throws [dev.hfnet.edge.MapFormatException]. */
        fun of(
            file: MapBytes,
            name: String,
            queryDim: Int,
            dim: Int,
            subspaces: Int,
            projections: Int,
            limits: Int,
            books: Int,
        ): Codec {
            if (name != INT8 && name != PQ && name != BINARY) throw file.fail("the codec $name does not exist")
            if (dim !in 1..Meta.MAX_DIM.toInt()) throw file.fail("codes of $dim dimensions")
            var projection: ByteArray? = null
            var thresholds: IntArray? = null
            var codebook: ByteArray? = null
            if (file.has(projections)) {
                file.shaped(projections, dim.toLong() * queryDim)
                projection = file.use(projections).toBytes()
            } else if (dim != queryDim || name == BINARY) {
                throw file.fail("section $projections is missing")
            }
            if (name == BINARY) {
                file.shaped(limits, 4L * dim)
                val values = file.use(limits)
                thresholds = IntArray(dim) { values.getInt(4 * it) }
            }
            if (name == PQ) {
                val right = subspaces in 1..dim && dim % subspaces == 0 && dim / subspaces <= MAX_SUBSPACE_DIM
                if (!right) throw file.fail("$dim dimensions in $subspaces subspaces")
                file.shaped(books, 256L * dim)
                codebook = file.use(books).toBytes()
            }
            val bytes = when (name) {
                INT8 -> dim
                PQ -> subspaces
                else -> (dim + 7) / 8
            }
            return Codec(name, dim, queryDim, bytes, projection, thresholds, codebook, subspaces)
        }

        private const val MAX_SUBSPACE_DIM = 16
        private const val BLOCK = 1024 // descriptors at a time
    }
}

/** The product of two runs of whole numbers. */
internal fun dot(a: ByteArray, aAt: Int, b: ByteArray, bAt: Int, length: Int): Int {
    var sum = 0
    for (j in 0 until length) sum += a[aAt + j] * b[bAt + j]
    return sum
}

/** A sum in units of 1/127, a half rounded up (SPEC, section 6). */
internal fun round127(sum: Int): Byte = Math.floorDiv(sum + 63, 127).coerceIn(-127, 127).toByte()

internal fun java.nio.ByteBuffer.toBytes(): ByteArray = ByteArray(remaining()).also { duplicate().get(it) }
