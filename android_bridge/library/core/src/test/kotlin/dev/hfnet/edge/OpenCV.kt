package dev.hfnet.edge

import dev.hfnet.edge.desktop.DesktopOpenCv

/** OpenCV's natives, for tests, loaded as on a desktop. */
object OpenCV {
    /** OpenCV's version; with it, its classes may be used. */
    val loaded: String get() = DesktopOpenCv.version
}
