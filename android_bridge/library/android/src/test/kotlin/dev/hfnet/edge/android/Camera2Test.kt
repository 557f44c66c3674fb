package dev.hfnet.edge.android

import android.graphics.Rect
import android.hardware.camera2.CameraCharacteristics
import android.util.Size
import android.util.SizeF
import dev.hfnet.edge.CameraException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.shadow.api.Shadow
import org.robolectric.shadows.ShadowCameraCharacteristics

@RunWith(RobolectricTestRunner::class)
class Camera2Test {
    private val characteristics = ShadowCameraCharacteristics.newCameraCharacteristics()

    @Test
    fun aCalibrationIsScaledToTheImage() {
        say(CameraCharacteristics.SENSOR_INFO_PRE_CORRECTION_ACTIVE_ARRAY_SIZE, Rect(0, 0, 4000, 3000))
        say(CameraCharacteristics.LENS_INTRINSIC_CALIBRATION, floatArrayOf(3000f, 3010f, 2020f, 1490f, 0f))
        val quarter = Camera2.camera(characteristics, 1000, 750)
        assertEquals("PINHOLE 1000 750 750.000000 752.500000 505.000000 372.500000", quarter.toString())
        val wide = Camera2.camera(characteristics, 1600, 900) // rows 375 to 2625 of the sensor
        assertEquals("PINHOLE 1600 900 1200.000000 1204.000000 808.000000 446.000000", wide.toString())
    }

    @Test
    fun withoutOneTheLensAndTheSensorsSizeSayIt() {
        say(CameraCharacteristics.SENSOR_INFO_ACTIVE_ARRAY_SIZE, Rect(8, 8, 4008, 3008))
        say(CameraCharacteristics.SENSOR_INFO_PIXEL_ARRAY_SIZE, Size(4016, 3016))
        say(CameraCharacteristics.SENSOR_INFO_PHYSICAL_SIZE, SizeF(6.024f, 4.524f)) // pixels of 1.5 um
        assertFailsWith<CameraException> { Camera2.camera(characteristics, 1000, 750) }
        say(CameraCharacteristics.LENS_INFO_AVAILABLE_FOCAL_LENGTHS, floatArrayOf(4.5f))
        val camera = Camera2.camera(characteristics, 1000, 750)
        assertEquals(750.0, camera.focalX, 1e-3)
        assertEquals(750.0, camera.focalY, 1e-3)
        assertEquals(listOf(500.0, 375.0), listOf(camera.centerX, camera.centerY))
    }

    private fun <T : Any> say(key: CameraCharacteristics.Key<T>, value: T) =
        Shadow.extract<ShadowCameraCharacteristics>(characteristics).set(key, value)
}
