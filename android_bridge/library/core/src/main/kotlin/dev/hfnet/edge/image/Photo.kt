package dev.hfnet.edge.image

import kotlin.math.max
import kotlin.math.min

/**
 * A frame as the network sees it: turned upright, reduced to fit its input with the aspect ratio kept, and mirrored into
 * what is left.
 */
public class Photo private constructor(
    /** Grey levels of the network's input, row by row. */
    public val pixels: ByteArray,
    /** Rows and columns of the input. */
    public val inputHeight: Int,
    public val inputWidth: Int,
    /** Rows and columns of it that hold the frame. */
    public val validHeight: Int,
    public val validWidth: Int,
    /** Columns and rows of the upright frame. */
    public val width: Int,
    public val height: Int,
    /** Degrees clockwise by which the frame was turned to be upright: 0, 90, 180 or 270. */
    public val rotation: Int,
) {
    /** A point of the network's input, in pixels of the frame as it was given. */
    public fun toCamera(x: Double, y: Double): DoubleArray {
        val px = x * (width.toDouble() / validWidth)
        val py = y * (height.toDouble() / validHeight)
        return when (rotation) {
            0 -> doubleArrayOf(px, py)
            90 -> doubleArrayOf(py, width - px)
            180 -> doubleArrayOf(width - px, height - py)
            else -> doubleArrayOf(height - py, px)
        }
    }

    public companion object {
        /**
         * Of grey levels, a Y plane for example.
         *
         * @param grey rows of [stride] bytes, [w] of them pixels. @param rotation degrees clockwise that make it upright.
         * @throws IllegalArgumentException the frame is smaller than the network's input on both sides, the plane is
         *   shorter than it says, or the rotation is no quarter turn.
         */
        @JvmStatic
        @JvmOverloads
        public fun of(
            grey: ByteArray,
            h: Int,
            w: Int,
            stride: Int,
            inputHeight: Int,
            inputWidth: Int,
            rotation: Int = 0,
        ): Photo {
            require(rotation in 0..270 && rotation % 90 == 0) { "rotation is $rotation, not 0, 90, 180 or 270" }
            require(h > 0 && w > 0 && stride >= w && grey.size >= stride.toLong() * (h - 1) + w) {
                "${grey.size} bytes are no plane of ${h}x$w with $stride bytes a row"
            }
            val sideways = rotation % 180 != 0
            val height = if (sideways) w else h
            val width = if (sideways) h else w
            val upright = if (rotation == 0) grey else turned(grey, h, w, stride, rotation)
            val rows = if (rotation == 0) stride else width
            val scale = min(inputHeight.toDouble() / height, inputWidth.toDouble() / width)
            require(scale <= 1) { "${h}x$w is smaller than the network's input of ${inputHeight}x$inputWidth" }
            val validHeight = max(1, min(inputHeight, Math.rint(height * scale).toInt()))
            val validWidth = max(1, min(inputWidth, Math.rint(width * scale).toInt()))
            val reduced = Reduction.shrink(upright, height, width, rows, validHeight, validWidth)
            val pixels = ByteArray(inputHeight * inputWidth)
            for (y in 0 until inputHeight) {
                val from = mirrored(y, validHeight) * validWidth
                for (x in 0 until inputWidth) pixels[y * inputWidth + x] = reduced[from + mirrored(x, validWidth)]
            }
            return Photo(pixels, inputHeight, inputWidth, validHeight, validWidth, width, height, rotation)
        }

        private fun turned(grey: ByteArray, h: Int, w: Int, stride: Int, rotation: Int): ByteArray {
            val out = ByteArray(h * w)
            for (y in 0 until h) {
                for (x in 0 until w) {
                    val at = when (rotation) {
                        90 -> x * h + (h - 1 - y)
                        180 -> (h - 1 - y) * w + (w - 1 - x)
                        else -> (w - 1 - x) * h + y
                    }
                    out[at] = grey[y * stride + x]
                }
            }
            return out
        }

        /** The pixel that an edge without itself mirrors at a place. */
        internal fun mirrored(at: Int, length: Int): Int {
            if (length == 1) return 0
            var x = at
            while (x < 0 || x >= length) x = if (x < 0) -x else 2 * length - 2 - x
            return x
        }
    }
}
