package dev.hfnet.edge

import dev.hfnet.edge.map.Codec

/**
 * Keypoints and descriptors of one image; N keypoints, blobs first, then the network's, each highest score first.
 */
public class Features internal constructor(
    /** N. */
    public val size: Int,
    /** N of two numbers, pixels of the image that the camera describes. */
    public val keypoints: DoubleArray,
    /** N: of blobs 1 more than their response in grey levels, of others the network's, at most 1. */
    public val scores: FloatArray,
    /** (N, D) int8 row by row, unit length times 127. */
    public val descriptors: ByteArray,
    /** G int8, unit length times 127. */
    public val globalDescriptor: ByteArray,
    /** Size of one pixel of the network's input in pixels of the image; the unit of every pixel threshold. */
    public val pixel: Double,
    /** Of the whole image, where the network has them. */
    public val hypercolumns: Hypercolumns?,
    private val memory: Memory,
) {
    private var codec: Codec? = null
    private var compared = descriptors

    /** Of arrays that are as long as they should be. */
    @JvmOverloads
    public constructor(
        keypoints: DoubleArray,
        scores: FloatArray,
        descriptors: ByteArray,
        globalDescriptor: ByteArray,
        pixel: Double,
        hypercolumns: Hypercolumns? = null,
    ) : this(keypoints.size / 2, keypoints, scores, descriptors, globalDescriptor, pixel, hypercolumns, Memory())

    /** The descriptors as a codec compares them, in the features' memory. */
    internal fun compared(by: Codec): ByteArray {
        if (codec !== by) compared = by.compared(descriptors, size, memory)
        codec = by
        return compared
    }

    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own(dim: Int): Features = Features(
        keypoints.copyOf(2 * size), scores.copyOf(size), descriptors.copyOf(size * dim), globalDescriptor.copyOf(),
        pixel, hypercolumns,
    )
}

/** What every cell of a photo looks like, (h, w, C) int8 of unit length times 127, and where points of it are. */
public class Hypercolumns internal constructor(
    internal val cells: ByteArray,
    internal val height: Int,
    internal val width: Int,
    internal val toCamera: (x: Double, y: Double) -> DoubleArray,
)
