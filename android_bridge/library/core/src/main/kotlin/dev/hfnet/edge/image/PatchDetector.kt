package dev.hfnet.edge.image

import dev.hfnet.edge.ImageException
import org.opencv.core.CvType
import org.opencv.core.Mat
import org.opencv.core.MatOfKeyPoint
import org.opencv.features2d.SIFT

/**
 * OpenCV's SIFT, which finds keypoints to cut patches around. It wants OpenCV loaded, as `OpenCVLoader.initLocal()`
 * does on Android.
 */
public object PatchDetector {
    private const val CONTRAST = 0.01 // OpenCV's default of 0.04 finds little in dark images
    private const val ANGLES = 4096 // steps of a turn: angles differ by 1e-6 between x86 and ARM

    /**
     * The [count] strongest keypoints whose patches lie in the image, strongest first.
     *
     * @param image grey levels, [height] rows of [width] columns. @throws ImageException the bytes are others.
     */
    @JvmStatic
    public fun detect(image: ByteArray, height: Int, width: Int, count: Int): PatchKeypoints {
        if (height < 1 || width < 1 || image.size.toLong() != height.toLong() * width) {
            throw ImageException("${image.size} bytes are no image of ${width}x$height", "give a byte of each pixel")
        }
        val all = keypoints(image, height, width)
        val order = (0 until all.size).filter { all.isInside(it, height, width) }.sortedWith(
            compareBy({ -all.scores[it] }, { all.xy[2 * it + 1] }, { all.xy[2 * it] }, { all.angle[it] }),
        )
        return all.rows(order.take(count).toIntArray())
    }

    private fun keypoints(image: ByteArray, height: Int, width: Int): PatchKeypoints {
        val pixels = Mat(height, width, CvType.CV_8UC1)
        val found = MatOfKeyPoint()
        try {
            pixels.put(0, 0, image)
            SIFT.create(0, 3, CONTRAST, 10.0, 1.6, true).detect(pixels, found)
            val n = found.rows()
            val values = FloatArray(FIELDS * n) // x, y, size, angle in degrees, response, octave, class
            if (n > 0) found.get(0, 0, values)
            return PatchKeypoints(
                FloatArray(2 * n) { values[FIELDS * (it / 2) + it % 2] + 0.5f },
                FloatArray(n) { values[FIELDS * it + 2] / 2 },
                FloatArray(n) { stepped(values[FIELDS * it + 3]) },
                FloatArray(n) { values[FIELDS * it + 4] },
            )
        } finally {
            pixels.release()
            found.release()
        }
    }

    /** Degrees to radians, rounded. */
    private fun stepped(degrees: Float): Float {
        val turns = Math.rint((degrees * (ANGLES / 360.0).toFloat()).toDouble()) % ANGLES
        return turns.toFloat() * (2 * Math.PI / ANGLES).toFloat()
    }

    private const val FIELDS = 7
}
