package dev.hfnet.edge.example

import android.content.Context
import dev.hfnet.edge.Camera
import dev.hfnet.edge.Frame
import dev.hfnet.edge.Localizer
import dev.hfnet.edge.android.Assets
import dev.hfnet.edge.android.LiteRtRuntime
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.networks.Network
import dev.hfnet.edge.networks.Networks
import java.io.Closeable

/** The place that the app's assets hold, and what localizes in it. Opening takes a moment: not on the main thread. */
class Place(context: Context) : Closeable {
    private val networks: Networks
    private val localizer: Localizer

    init {
        System.loadLibrary("opencv_java4") // the pose's solver
        val assets = context.applicationContext.assets
        val map = LocalizationMap.read(Assets.source(assets, MAP), MAP)
        networks = Networks(listOf(Network.read(Assets.buffer(assets, NETWORK), NETWORK, LiteRtRuntime(), THREADS)))
        localizer = Localizer(map, networks)
    }

    /** Localizes a frame that is upright when it is turned by [rotation] degrees clockwise. */
    fun look(frame: Frame, camera: Camera, rotation: Int): Sight =
        Sight.of(localizer.map, localizer.localize(frame, camera), camera, rotation)

    override fun close() {
        localizer.close()
        networks.close()
    }

    private companion object {
        const val MAP = "place.hfmap"
        const val NETWORK = "hfnet_int8.tflite"
        const val THREADS = 4
    }
}
