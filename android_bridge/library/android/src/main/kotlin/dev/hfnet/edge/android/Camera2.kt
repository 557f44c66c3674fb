package dev.hfnet.edge.android

import android.hardware.camera2.CameraCharacteristics
import dev.hfnet.edge.Camera
import dev.hfnet.edge.CameraException
import kotlin.math.max

/** Intrinsics of what Camera2 and CameraX deliver, where no ARCore says them. */
public object Camera2 {
    /**
     * The camera of an image as it is stored, which shows the middle of the sensor, as much as fits, unzoomed.
     *
     * The device's calibration is used where it has one; otherwise the focal length in millimetres and the sensor's
     * size, with the centre in the middle, which is off by a few percent.
     *
     * @param width columns of the image.
     * @param height rows.
     * @throws CameraException the device says neither.
     */
    @JvmStatic
    public fun camera(characteristics: CameraCharacteristics, width: Int, height: Int): Camera {
        val array = characteristics[CameraCharacteristics.SENSOR_INFO_PRE_CORRECTION_ACTIVE_ARRAY_SIZE]
            ?: characteristics[CameraCharacteristics.SENSOR_INFO_ACTIVE_ARRAY_SIZE]
            ?: throw unknown("its size in pixels")
        val scale = max(width.toDouble() / array.width(), height.toDouble() / array.height())
        val (fx, fy, cx, cy) = calibrated(characteristics) ?: nominal(characteristics, array.width(), array.height())
        return Camera(
            "PINHOLE", width, height,
            doubleArrayOf(
                fx * scale,
                fy * scale,
                width / 2.0 + (cx - array.width() / 2.0) * scale,
                height / 2.0 + (cy - array.height() / 2.0) * scale,
            ),
        )
    }

    private fun calibrated(characteristics: CameraCharacteristics): DoubleArray? =
        characteristics[CameraCharacteristics.LENS_INTRINSIC_CALIBRATION]
            ?.takeIf { it.size >= 4 && it[0] > 0 && it[1] > 0 }
            ?.let { said -> DoubleArray(4) { said[it].toDouble() } }

    private fun nominal(characteristics: CameraCharacteristics, width: Int, height: Int): DoubleArray {
        val focal = characteristics[CameraCharacteristics.LENS_INFO_AVAILABLE_FOCAL_LENGTHS]?.firstOrNull()
            ?: throw unknown("its focal length")
        val size = characteristics[CameraCharacteristics.SENSOR_INFO_PHYSICAL_SIZE] ?: throw unknown("its size in mm")
        val pixels = characteristics[CameraCharacteristics.SENSOR_INFO_PIXEL_ARRAY_SIZE]
            ?: throw unknown("its number of pixels")
        val fx = focal.toDouble() * pixels.width / size.width
        val fy = focal.toDouble() * pixels.height / size.height
        return doubleArrayOf(fx, fy, width / 2.0, height / 2.0)
    }

    private fun unknown(what: String) =
        CameraException("the camera does not say $what", "calibrate it and give a Camera")
}
