package dev.hfnet.edge.example

import android.Manifest
import android.content.Context
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraManager
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.widget.FrameLayout
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.annotation.OptIn
import androidx.camera.camera2.interop.Camera2CameraInfo
import androidx.camera.camera2.interop.ExperimentalCamera2Interop
import androidx.camera.core.CameraInfo
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.AspectRatioStrategy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import dev.hfnet.edge.android.Camera2
import dev.hfnet.edge.android.Frames
import dev.hfnet.edge.android.LocalizationWorker
import java.util.concurrent.Executor
import java.util.concurrent.Executors

/** The camera's preview, and over it the landmarks of the place. The one file that needs CameraX. */
class MainActivity : ComponentActivity(), LocalizationWorker.Listener<Sight> {
    private val main = Executor { Handler(Looper.getMainLooper()).post(it) }
    private val background = Executors.newSingleThreadExecutor()
    private val worker = LocalizationWorker(this, main)
    private lateinit var preview: PreviewView
    private lateinit var overlay: Overlay

    @Volatile
    private var place: Place? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        preview = PreviewView(this)
        overlay = Overlay(this)
        setContentView(FrameLayout(this).apply { addView(preview); addView(overlay) })
        background.execute {
            try {
                place = Place(this)
                main.execute { overlay.show("looking around") }
            } catch (e: Exception) {
                main.execute { onError(e) }
            }
        }
        registerForActivityResult(ActivityResultContracts.RequestPermission()) { granted ->
            if (granted) start() else overlay.show("the camera is not allowed")
        }.launch(Manifest.permission.CAMERA)
    }

    private fun start() {
        val found = ProcessCameraProvider.getInstance(this)
        found.addListener({
            val shape = ResolutionSelector.Builder()
                .setAspectRatioStrategy(AspectRatioStrategy.RATIO_4_3_FALLBACK_AUTO_STRATEGY).build()
            val shown = Preview.Builder().setResolutionSelector(shape).build()
            shown.surfaceProvider = preview.surfaceProvider
            val analysis = ImageAnalysis.Builder().setResolutionSelector(shape).build()
            val bound = found.get().bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, shown, analysis)
            val characteristics = characteristics(bound.cameraInfo)
            analysis.setAnalyzer(background) { image -> image.use { offer(it, characteristics) } }
        }, main)
    }

    private fun offer(image: ImageProxy, characteristics: CameraCharacteristics) {
        val open = place ?: return
        val y = image.planes[0]
        val rotation = image.imageInfo.rotationDegrees
        val plane = Frames.ofPlanes(y.buffer, y.rowStride, y.pixelStride, image.width, image.height, rotation)
        worker.offer(plane) { frame ->
            open.look(frame, Camera2.camera(characteristics, plane.width, plane.height), rotation)
        }
    }

    @OptIn(ExperimentalCamera2Interop::class)
    private fun characteristics(info: CameraInfo) =
        (getSystemService(Context.CAMERA_SERVICE) as CameraManager)
            .getCameraCharacteristics(Camera2CameraInfo.from(info).cameraId)

    override fun onResult(result: Sight) = overlay.show(result)

    override fun onError(error: Throwable) = overlay.show(error.message ?: error.toString())

    override fun onDestroy() {
        super.onDestroy()
        worker.close()
        background.execute { place?.close() } // after the place was opened, if it still is being
        background.shutdown()
    }
}
