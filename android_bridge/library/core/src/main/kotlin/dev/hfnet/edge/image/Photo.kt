package dev.hfnet.edge.image

import dev.hfnet.edge.Camera
import dev.hfnet.edge.CameraException
import dev.hfnet.edge.ImageException
import dev.hfnet.edge.InputException
import dev.hfnet.edge.Memory
import kotlin.math.max
import kotlin.math.min

/**
 * A frame as the network sees it: turned upright, resized to fit its input with the aspect ratio kept, and mirrored
 * into what is left.
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
    /** EXIF orientation that points are turned back by; 1 where the camera describes the upright frame. */
    public val orientation: Int,
) {
    /** Size of a pixel of the network's input in pixels of the frame; the unit of every pixel threshold. */
    internal val pixel get() = max(width.toDouble() / validWidth, height.toDouble() / validHeight)

    /** A point of the network's input, in pixels of the frame that the camera describes. */
    public fun toCamera(x: Double, y: Double): DoubleArray = DoubleArray(2).also { toCamera(x, y, it, 0) }

    /** As the other one, into [out] at [at]. */
    internal fun toCamera(x: Double, y: Double, out: DoubleArray, at: Int): Unit = Orientation.back(
        orientation, x * (width.toDouble() / validWidth), y * (height.toDouble() / validHeight), width, height, out, at,
    )

    /** The inverse of [toCamera]. */
    public fun fromCamera(x: Double, y: Double): DoubleArray {
        val upright = Orientation.there(orientation, x, y, width, height)
        upright[0] /= width.toDouble() / validWidth
        upright[1] /= height.toDouble() / validHeight
        return upright
    }

    public companion object {
        private const val MIN_SIDE = 32 // below this a network's last layer has no pixel of its own
        private const val MAX_PIXELS = 1L shl 28

        /**
         * Of grey levels, a Y plane for example; the camera describes them as they are stored.
         *
         * @param grey rows of [stride] bytes, [w] of them pixels.
         * @param rotation degrees clockwise that make it upright.
         * @throws ImageException the frame is too small or too large, or the plane shorter than it says.
         * @throws InputException the rotation is no quarter turn.
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
        ): Photo = of(grey, h, w, stride, inputHeight, inputWidth, rotation, Memory())

        /** As the other one; its pixels live in [memory]. */
        internal fun of(
            grey: ByteArray,
            h: Int,
            w: Int,
            stride: Int,
            inputHeight: Int,
            inputWidth: Int,
            rotation: Int,
            memory: Memory,
        ): Photo {
            val orientation = Orientation.ofRotation(rotation)
            return upright(grey, h, w, stride, inputHeight, inputWidth, orientation, orientation, 1, memory)
        }

        /**
         * Of the grey levels that a file holds.
         *
         * @param grey rows of [stride] bytes, [w] of them pixels.
         * @param orientation as the file's EXIF says it; what is not 1 to 8 is 1.
         * @param camera of the upright or of the stored image; null: of the upright one.
         * @param reduced by how many times the file was reduced when it was decoded; a camera describes the whole one.
         * @throws ImageException the image is too small or too large, or the plane shorter than it says.
         * @throws CameraException the camera is of another size.
         */
        @JvmStatic
        @JvmOverloads
        public fun ofFile(
            grey: ByteArray,
            h: Int,
            w: Int,
            stride: Int,
            inputHeight: Int,
            inputWidth: Int,
            orientation: Int,
            camera: Camera?,
            reduced: Int = 1,
        ): Photo = ofFile(grey, h, w, stride, inputHeight, inputWidth, orientation, camera, reduced, Memory())

        internal fun ofFile(
            grey: ByteArray,
            h: Int,
            w: Int,
            stride: Int,
            inputHeight: Int,
            inputWidth: Int,
            orientation: Int,
            camera: Camera?,
            reduced: Int,
            memory: Memory,
        ): Photo {
            val turn = if (orientation in 1..8) orientation else 1
            val width = reduced * if (Orientation.isSideways(turn)) h else w
            val height = reduced * if (Orientation.isSideways(turn)) w else h
            val back = when {
                camera == null || (camera.width == width && camera.height == height) -> 1
                camera.width == reduced * w && camera.height == reduced * h -> turn
                else -> throw CameraException(
                    "the image is ${width}x$height, its camera ${camera.width}x${camera.height}",
                    "give the intrinsics for this size",
                )
            }
            return upright(grey, h, w, stride, inputHeight, inputWidth, turn, back, reduced, memory)
        }

        private fun upright(
            grey: ByteArray,
            h: Int,
            w: Int,
            stride: Int,
            inputHeight: Int,
            inputWidth: Int,
            orientation: Int,
            back: Int,
            reduced: Int,
            memory: Memory,
        ): Photo {
            if (min(h, w) < MIN_SIDE || h.toLong() * w > MAX_PIXELS) {
                throw ImageException("the frame is ${w}x$h", "sides are of $MIN_SIDE pixels at least, 268 Mpx at most")
            }
            if (stride < w || grey.size < stride.toLong() * (h - 1) + w) {
                throw ImageException(
                    "${grey.size} bytes are no plane of ${w}x$h with $stride bytes a row", "give all rows",
                )
            }
            val sideways = Orientation.isSideways(orientation)
            val height = if (sideways) w else h
            val width = if (sideways) h else w
            val upright = if (orientation == 1) grey else Orientation.turned(grey, h, w, stride, orientation, memory)
            val rows = if (orientation == 1) stride else width
            val scale = min(inputHeight.toDouble() / height, inputWidth.toDouble() / width)
            val validHeight = max(1, min(inputHeight, Math.rint(height * scale).toInt()))
            val validWidth = max(1, min(inputWidth, Math.rint(width * scale).toInt()))
            val resized = if (scale < 1) {
                Reduction.shrink(upright, height, width, rows, validHeight, validWidth, memory)
            } else {
                Enlargement.enlarge(upright, height, width, rows, validHeight, validWidth)
            }
            val pixels = memory.bytes("photo", inputHeight * inputWidth)
            for (y in 0 until inputHeight) {
                val from = mirrored(y, validHeight) * validWidth
                System.arraycopy(resized, from, pixels, y * inputWidth, validWidth)
                for (x in validWidth until inputWidth) {
                    pixels[y * inputWidth + x] = resized[from + mirrored(x, validWidth)]
                }
            }
            return Photo(
                pixels, inputHeight, inputWidth, validHeight, validWidth, reduced * width, reduced * height, back,
            )
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
