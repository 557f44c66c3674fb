package dev.hfnet.edge

import dev.hfnet.edge.image.Colors
import dev.hfnet.edge.image.Luma
import dev.hfnet.edge.image.Orientation
import dev.hfnet.edge.image.Photo

/** Pixels in memory: grey levels, and how they are turned to be upright. They are not copied. */
public class Frame private constructor(
    private val grey: ByteArray,
    private val columns: Int,
    private val rows: Int,
    private val stride: Int,
    private val orientation: Int,
    private val asStored: Boolean,
    /** Nobody has said how it is turned, so that what is known of gravity may. */
    internal val unsaid: Boolean,
    /** By how many times a file was reduced when it was decoded. */
    private val reduced: Int = 1,
) {
    /** Columns and rows as they are stored, which a camera describes. */
    public val width: Int get() = reduced * columns
    public val height: Int get() = reduced * rows

    /** The frame, upright, as a network's input. */
    internal fun photo(inputHeight: Int, inputWidth: Int, camera: Camera, memory: Memory): Photo {
        if (asStored && (camera.width != width || camera.height != height)) {
            throw CameraException(
                "the frame is ${width}x$height, its camera ${camera.width}x${camera.height}",
                "give the intrinsics for this size",
            )
        }
        return if (asStored) {
            Photo.of(grey, rows, columns, stride, inputHeight, inputWidth, rotation, memory)
        } else {
            Photo.ofFile(grey, rows, columns, stride, inputHeight, inputWidth, orientation, camera, reduced, memory)
        }
    }

    /** Degrees clockwise that make it upright, of a frame that says so. */
    internal val rotation get() = if (asStored) Orientation.rotations.getValue(orientation) else 0

    /** The same pixels, upright when they are turned by so many degrees clockwise; a camera describes them as stored. */
    internal fun turnedBy(degrees: Int): Frame {
        if (reduced != 1) throw InputException("the file was reduced when it was decoded", "decode it whole")
        return Frame(grey, columns, rows, stride, Orientation.ofRotation(degrees), true, false)
    }

    /** As a [camera] describes it, without a turn, and the degrees clockwise by which it is upright. */
    internal fun asDescribed(camera: Camera): Pair<Frame, Int> {
        if (asStored || orientation == 1) return turnedBy(0) to rotation
        if (camera.width == width && camera.height == height && !isUprightSize(camera)) {
            return turnedBy(0) to (Orientation.rotations[orientation] ?: 0)
        }
        val upright = Orientation.turned(grey, rows, columns, stride, orientation)
        val sideways = Orientation.isSideways(orientation)
        val across = if (sideways) rows else columns
        return Frame(upright, across, if (sideways) columns else rows, across, 1, true, false) to 0
    }

    private fun isUprightSize(camera: Camera): Boolean {
        val sideways = Orientation.isSideways(orientation)
        return camera.width == (if (sideways) height else width) && camera.height == (if (sideways) width else height)
    }

    public companion object {
        /**
         * Of grey levels, the Y plane of a camera's image for example; a camera describes them as they are stored.
         *
         * @param grey rows of [stride] bytes, [width] of them pixels. @param rotation degrees clockwise by which they are
         *   upright, 0, 90, 180 or 270, as `ImageProxy` says it; null: nobody knows, and a prior's gravity may say.
         * @throws InputException the rotation is no quarter turn.
         */
        @JvmStatic
        @JvmOverloads
        public fun ofGrey(grey: ByteArray, width: Int, height: Int, stride: Int = width, rotation: Int? = null): Frame =
            Frame(grey, width, height, stride, Orientation.ofRotation(rotation ?: 0), true, rotation == null)

        /**
         * Of pixels of three or four bytes.
         *
         * @param pixels rows of [stride] bytes. @param rotation see [ofGrey].
         * @throws ImageException the bytes are fewer than that. @throws InputException the rotation is no quarter turn.
         */
        @JvmStatic
        @JvmOverloads
        public fun ofColors(
            pixels: ByteArray, width: Int, height: Int, colors: Colors, stride: Int = colors.bytes * width,
            rotation: Int? = null,
        ): Frame = ofGrey(Luma.of(pixels, height, width, stride, colors), width, height, width, rotation)

        /**
         * Of the grey levels that a file holds; a camera may describe the upright or the stored pixels.
         *
         * @param grey [rows] of [columns]. @param orientation as the file's EXIF says it, 1 to 8. @param reduced by how
         *   many times it was reduced when it was decoded; a camera describes the whole one.
         */
        @JvmStatic
        @JvmOverloads
        public fun ofFile(grey: ByteArray, columns: Int, rows: Int, orientation: Int, reduced: Int = 1): Frame {
            val turn = if (orientation in 1..8) orientation else 1
            return Frame(grey, columns, rows, columns, turn, false, turn == 1 && reduced == 1, reduced)
        }
    }
}
