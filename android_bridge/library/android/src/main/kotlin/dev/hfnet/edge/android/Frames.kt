package dev.hfnet.edge.android

import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.media.Image
import dev.hfnet.edge.ImageException
import dev.hfnet.edge.image.Luma
import java.nio.ByteBuffer

/** Grey levels of what Android calls an image. */
public object Frames {
    /**
     * The Y plane of an image that Camera2 or ARCore delivers, where it is.
     *
     * @param image of [ImageFormat.YUV_420_888]; leave it open until the plane was used.
     * @param rotation degrees clockwise that make it upright: the sensor's orientation, less the display's.
     * @throws ImageException the image is of another format.
     */
    @JvmStatic
    public fun of(image: Image, rotation: Int): GreyPlane {
        if (image.format != ImageFormat.YUV_420_888) {
            throw ImageException("the image's format is ${image.format}", "set the reader to ImageFormat.YUV_420_888")
        }
        val y = image.planes[0]
        return ofPlanes(y.buffer, y.rowStride, y.pixelStride, image.width, image.height, rotation)
    }

    /**
     * A Y plane by its numbers, as CameraX' ImageProxy has them.
     *
     * It stays where it is if its pixels lie side by side, as they do in YUV_420_888; otherwise it is gathered.
     *
     * @param rotation degrees clockwise that make it upright: `ImageInfo.getRotationDegrees()`.
     * @throws ImageException the plane is shorter than it says, or the rotation is no quarter turn.
     */
    @JvmStatic
    public fun ofPlanes(
        y: ByteBuffer,
        rowStride: Int,
        pixelStride: Int,
        width: Int,
        height: Int,
        rotation: Int,
    ): GreyPlane {
        if (pixelStride == 1) return GreyPlane(y, height, width, rowStride, rotation)
        val needed = rowStride.toLong() * (height - 1) + pixelStride.toLong() * (width - 1) + 1
        if (pixelStride < 1 || height <= 0 || width <= 0 || rowStride < 0 || y.remaining() < needed) {
            throw ImageException(
                "${y.remaining()} bytes are no plane of ${height}x$width with strides of $rowStride and $pixelStride",
                "give the Y plane with its own strides",
            )
        }
        val pixels = ByteArray(height * width)
        val first = y.position()
        for (row in 0 until height) {
            for (column in 0 until width) {
                pixels[row * width + column] = y.get(first + row * rowStride + column * pixelStride)
            }
        }
        return GreyPlane(ByteBuffer.wrap(pixels), height, width, width, rotation)
    }

    /**
     * A picture's luma, Rec. 601 in whole numbers: what the Python runtime makes of the same colours.
     *
     * @param rotation degrees clockwise that make it upright; EXIF is not in a bitmap any more.
     * @throws ImageException the bitmap lies in the GPU alone, or was recycled.
     */
    @JvmStatic
    @JvmOverloads
    public fun of(bitmap: Bitmap, rotation: Int = 0): GreyPlane {
        val width = bitmap.width
        val height = bitmap.height
        val pixels = IntArray(height * width)
        try {
            bitmap.getPixels(pixels, 0, width, 0, 0, width, height)
        } catch (e: IllegalStateException) {
            throw ImageException("the bitmap cannot be read: ${e.message}", "copy it to ARGB_8888 first", e)
        }
        return GreyPlane(ByteBuffer.wrap(Luma.ofArgb(pixels)), height, width, width, rotation)
    }
}
