package dev.hfnet.edge.networks

import dev.hfnet.edge.image.Photo

/** A retrieval network: one image to its global descriptor, and nothing else. */
public class RetrievalNetwork internal constructor(file: ModelFile, runtime: Runtime, threads: Int) :
    Network(file, runtime, threads, 1) {
    /** The global descriptor (G) of a photo, which may be of another network's input size, but not smaller. */
    public fun describe(photo: Photo): FloatArray {
        val h = description.inputHeight
        val w = description.inputWidth
        val own = photo.inputHeight == h && photo.inputWidth == w
        val fitted = if (own) photo else {
            Photo.of(photo.pixels, photo.validHeight, photo.validWidth, photo.inputWidth, h, w)
        }
        return run(fitted.pixels) { it.getValue(Role.GLOBAL).toFloats() }
    }
}
