package dev.hfnet.edge.image

/** Descriptors of patches: real-valued and, by their signs, binary. */
public object PatchDescriptors {
    /**
     * A patch network's vectors, (N, [width]), to unit length times 127, rounded; what is negative stays so: -0.3
     * becomes -1.
     */
    @JvmStatic
    public fun quantize(vectors: FloatArray, width: Int): ByteArray {
        val out = Keypoints.quantize(vectors, width)
        for (k in out.indices) if (out[k].toInt() == 0 && vectors[k] < 0) out[k] = -1
        return out
    }
}
