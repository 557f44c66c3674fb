package dev.hfnet.edge.android

import dev.hfnet.edge.Frame
import dev.hfnet.edge.ImageException
import java.nio.ByteBuffer

/**
 * A camera's grey levels where the camera has them: nothing is copied, so they are gone when the image is closed.
 *
 * @property height rows as stored.
 * @property width columns as stored.
 * @property rowStride bytes from a row to the next.
 * @property rotation degrees clockwise that make it upright: 0, 90, 180 or 270.
 */
public class GreyPlane internal constructor(
    pixels: ByteBuffer,
    public val height: Int,
    public val width: Int,
    public val rowStride: Int,
    public val rotation: Int,
) {
    private val y: ByteBuffer = pixels.slice()

    init {
        if (rotation !in 0..270 || rotation % 90 != 0) {
            throw ImageException("rotation is $rotation", "give 0, 90, 180 or 270 degrees clockwise")
        }
        if (height <= 0 || width <= 0 || rowStride < width || y.remaining() < size(height, width, rowStride)) {
            throw ImageException(
                "${y.remaining()} bytes are no plane of ${height}x$width with $rowStride bytes a row",
                "give the Y plane with its own stride",
            )
        }
    }

    /** The grey levels, read-only, from the first pixel on; the last row may end with its last pixel. */
    public val pixels: ByteBuffer get() = y.asReadOnlyBuffer()

    /** A copy, to be localized when and where one likes. */
    public fun toFrame(): Frame = frameOf(copy(ByteArray(0)))

    /** With the rows that [copied] holds. */
    internal fun frameOf(copied: ByteArray): Frame = Frame.ofGrey(copied, width, height, rowStride, rotation)

    /** Copies the rows with their stride to [into], or to new memory where that is too short. */
    internal fun copy(into: ByteArray): ByteArray {
        val size = size(height, width, rowStride).toInt()
        val copied = if (into.size >= size) into else ByteArray(size)
        y.duplicate().get(copied, 0, size)
        return copied
    }

    private companion object {
        fun size(height: Int, width: Int, rowStride: Int) = rowStride.toLong() * (height - 1) + width
    }
}
