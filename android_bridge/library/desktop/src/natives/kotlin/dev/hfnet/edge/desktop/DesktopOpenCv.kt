package dev.hfnet.edge.desktop

import dev.hfnet.edge.HFNetEdgeException
import java.io.File
import java.io.IOException
import org.bytedeco.javacpp.Loader
import org.bytedeco.openblas.global.openblas
import org.opencv.core.Core

/** OpenCV's natives on a desktop or a server; poses, patches and image files want them. */
public object DesktopOpenCv {
    /** Loads them, once, for one thread a call. Throws [HFNetEdgeException]: there are none for this machine. */
    @JvmStatic
    public fun load() {
        check(version.isNotEmpty())
    }

    /** OpenCV's. */
    @JvmStatic
    public val version: String by lazy {
        try {
            if (Loader.getPlatform().startsWith("linux")) loadWithoutWindows() else Loader.load(org.bytedeco.opencv.opencv_java::class.java)
            Core.setNumThreads(1)
        } catch (e: LinkageError) {
            throw missing(e)
        } catch (e: IOException) {
            throw missing(e)
        }
        Core.VERSION
    }

    private fun missing(e: Throwable): HFNetEdgeException {
        val machine = Loader.getPlatform()
        return HFNetEdgeException(
            "OpenCV's native library for $machine cannot be loaded: ${e.message}",
            "add org.bytedeco:opencv, openblas and javacpp with the classifier $machine",
            e,
        )
    }

    /** All but what draws windows, which wants GTK: servers have none. A library is loaded after those that it needs. */
    private fun loadWithoutWindows() {
        Loader.load(openblas::class.java)
        val folder = Loader.cacheResources("/org/bytedeco/opencv/${Loader.getPlatform()}").firstOrNull()
            ?: throw UnsatisfiedLinkError("it is not on the class path")
        var left = folder.listFiles { file -> PART.matches(file.name) }!!.sorted()
        while (left.isNotEmpty()) {
            val still = left.filterNot(::loads)
            if (still.size == left.size) break // what wants a part that draws
            left = still
        }
        System.load(File(folder, "libopencv_java.so").path)
    }

    private fun loads(library: File): Boolean = try {
        System.load(library.path)
        true
    } catch (_: UnsatisfiedLinkError) {
        false
    }

    private val PART = Regex("libopencv_(?!highgui).*\\.so\\.\\d+")
}
