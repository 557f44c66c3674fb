package dev.hfnet.edge.image

/** A dense output of a network, (h, w, [channels]) row by row: float32, or int8 that stands for it. */
public class Output private constructor(
    /** h. */
    public val height: Int,
    /** w. */
    public val width: Int,
    /** Values of a cell. */
    public val channels: Int,
    private val floats: FloatArray?,
    private val bytes: ByteArray?,
    private val scale: Float,
    private val zeroPoint: Int,
) {
    /** The value at a place of the array. */
    internal operator fun get(at: Int): Float =
        if (floats != null) floats[at] else (bytes!![at] - zeroPoint).toFloat() * scale

    public companion object {
        /** Of float32 [values]. */
        @JvmStatic
        public fun of(values: FloatArray, height: Int, width: Int, channels: Int): Output {
            require(values.size == height * width * channels) { "${values.size} values of ${height}x${width}x$channels" }
            return Output(height, width, channels, values, null, 1f, 0)
        }

        /** Of int8 [values] that stand for `scale * (value - zeroPoint)`. */
        @JvmStatic
        public fun of(values: ByteArray, height: Int, width: Int, channels: Int, scale: Float, zeroPoint: Int): Output {
            require(values.size == height * width * channels) { "${values.size} values of ${height}x${width}x$channels" }
            return Output(height, width, channels, null, values, scale, zeroPoint)
        }
    }
}

/** N points, x and y one after the other in [xy], pixels of the network's input, pixel centres at 0.5; their scores. */
public class Points internal constructor(public val xy: FloatArray, public val scores: FloatArray) {
    /** N. */
    public val size: Int get() = scores.size
}
