package dev.hfnet.edge.image

import dev.hfnet.edge.Memory

/**
 * A dense output of a network, ([height], [width], [channels]) row by row: float32, or int8 that stands for it. Of N
 * vectors [height] is N and [width] 1.
 */
public class Output private constructor(
    /** h. */
    public val height: Int,
    /** w. */
    public val width: Int,
    /** Values of a cell. */
    public val channels: Int,
    /** The values; null: they are int8. */
    public val floats: FloatArray?,
    /** The values, which stand for `scale * (value - zeroPoint)`; null: they are float32. */
    public val bytes: ByteArray?,
    /** Of [bytes]. */
    public val scale: Float,
    /** Of [bytes]. */
    public val zeroPoint: Int,
) {
    /** Values in all. */
    public val size: Int get() = floats?.size ?: bytes!!.size

    /** The value at a place of the array. */
    public operator fun get(at: Int): Float =
        if (floats != null) floats[at] else (bytes!![at] - zeroPoint).toFloat() * scale

    /** All values, a copy. */
    public fun toFloats(): FloatArray = floats?.copyOf() ?: FloatArray(size) { get(it) }

    /** Puts [n] values from a place on into [out] at [to]. */
    internal fun read(at: Int, n: Int, out: FloatArray, to: Int) {
        if (floats != null) {
            System.arraycopy(floats, at, out, to, n)
        } else {
            for (i in 0 until n) out[to + i] = (bytes!![at + i] - zeroPoint).toFloat() * scale
        }
    }

    /** All values: the output's own array, or one of this [name] in [memory]. */
    internal fun values(memory: Memory, name: String): FloatArray {
        if (floats != null) return floats
        val out = memory.floats(name, height * width * channels)
        read(0, bytes!!.size, out, 0)
        return out
    }

    public companion object {
        /** Of float32 [values]. */
        @JvmStatic
        public fun of(values: FloatArray, height: Int, width: Int, channels: Int): Output {
            check(values.size, height, width, channels)
            return Output(height, width, channels, values, null, 1f, 0)
        }

        /** Of int8 [values] that stand for `scale * (value - zeroPoint)`. */
        @JvmStatic
        public fun of(values: ByteArray, height: Int, width: Int, channels: Int, scale: Float, zeroPoint: Int): Output {
            check(values.size, height, width, channels)
            return Output(height, width, channels, null, values, scale, zeroPoint)
        }

        /** Of float32 [values] of any shape, the batch first. */
        @JvmStatic
        public fun of(values: FloatArray, shape: IntArray): Output {
            val (h, w, c) = sides(shape)
            return of(values, h, w, c)
        }

        /** Of int8 [values] of any shape, the batch first. */
        @JvmStatic
        public fun of(values: ByteArray, shape: IntArray, scale: Float, zeroPoint: Int): Output {
            val (h, w, c) = sides(shape)
            return of(values, h, w, c, scale, zeroPoint)
        }

        private fun check(size: Int, height: Int, width: Int, channels: Int) =
            require(size == height * width * channels) { "$size values of ${height}x${width}x$channels" }

        private fun sides(shape: IntArray): IntArray {
            val channels = if (shape.isEmpty()) 1 else shape.last()
            val width = if (shape.size < 3) 1 else shape[shape.size - 2]
            val rest = shape.dropLast(if (shape.size < 3) 1 else 2).fold(1) { all, side -> all * side }
            return intArrayOf(rest, width, channels)
        }
    }
}

/** N points, x and y one after the other in [xy], pixels of the network's input, pixel centres at 0.5; their scores. */
public class Points internal constructor(
    public val xy: FloatArray,
    public val scores: FloatArray,
    /** N. */
    public val size: Int = scores.size,
) {
    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own(): Points = Points(xy.copyOf(2 * size), scores.copyOf(size))
}
