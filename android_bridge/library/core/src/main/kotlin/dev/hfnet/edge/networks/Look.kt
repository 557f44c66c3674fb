package dev.hfnet.edge.networks

import dev.hfnet.edge.Features
import dev.hfnet.edge.Hypercolumns
import dev.hfnet.edge.Memory
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Blobs
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.PatchDetector
import dev.hfnet.edge.image.Patches
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.search.DenseSearch
import dev.hfnet.edge.shell.Clock

/** From a photo to its features, by the networks. */
public object Look {
    /** Keypoints at most. */
    public const val MAX_KEYPOINTS: Int = 3000

    /** Least score of the network's keypoints. */
    public const val MIN_SCORE: Float = 0.005f
    private const val BORDER = 4

    /** Keypoints that a patch network describes, at most. */
    public const val MAX_PATCHES: Int = 2000

    /**
     * What networks make of a photo. A retrieval network's global descriptor is used in HF-Net's stead; a patch network
     * describes SIFT keypoints, and of HF-Net then only the global descriptor and the hypercolumns are used.
     *
     * @param cells whether hypercolumns are asked for.
     * @throws ModelException a network fails. @throws MismatchException there is no HF-Net.
     */
    @JvmStatic
    @JvmOverloads
    public fun look(networks: Networks, photo: Photo, cells: Boolean = false): Features =
        look(networks, photo, cells, Memory(), Clock()) { _, _ -> }
            .own((networks.patches ?: networks.image).description.localDim)

    /** As above, in [memory]; [keep] is shown each output that is used, which holds during the call alone. */
    internal fun look(
        networks: Networks, photo: Photo, cells: Boolean, memory: Memory, clock: Clock,
        keep: (role: String, output: Output) -> Unit,
    ): Features {
        val model = networks.image
        val about = model.description
        val global = clock.time("extract") { networks.retrieval?.describe(photo) }
        val start = System.nanoTime()
        return model.look(photo.pixels) { raw ->
            clock.add("extract", System.nanoTime() - start)
            val patches = networks.patches
            for ((role, output) in raw.outputs) {
                val used = if (role == Role.HYPERCOLUMNS) cells else patches == null || role == Role.GLOBAL
                if (used) keep(role, if (role == Role.GLOBAL && global != null) vector(global) else output)
            }
            if (patches == null) {
                clock.time("decode") {
                    decode(raw, photo, about.nmsRadius, MAX_KEYPOINTS, MIN_SCORE, about.detector, memory, cells, global)
                }
            } else {
                clock.time("describe") {
                    val columns = if (cells) raw.hypercolumns?.let { touched(it, photo) } else null
                    describe(patches, global ?: raw.globalDescriptor.toFloats(), photo, columns)
                }
            }
        }
    }

    /** SIFT keypoints with the patch network's descriptors; those whose patch leaves the image are not used. */
    private fun describe(patches: PatchNetwork, global: FloatArray, photo: Photo, columns: Hypercolumns?): Features {
        val h = photo.validHeight
        val w = photo.validWidth
        val image = ByteArray(h * w) { photo.pixels[it / w * photo.inputWidth + it % w] }
        val found = PatchDetector.detect(image, h, w, MAX_PATCHES)
        return Features(
            toCamera(photo, found.xy, found.size, Memory()), found.scores, patches.describe(Patches.cut(image, h, w, found)),
            Keypoints.quantize(global, global.size), photo.pixel, columns,
        )
    }

    /**
     * Keypoints of a photo, with the network's descriptors there.
     *
     * @param maxKeypoints at most so many. @param threshold the least score of the network's keypoints.
     * @param detector "network", or "blobs": up to two thirds are blobs, the others the network's.
     * @param cells whether hypercolumns are asked for. @param global in the stead of the network's.
     */
    internal fun decode(
        raw: RawOutputs,
        photo: Photo,
        nmsRadius: Int,
        maxKeypoints: Int,
        threshold: Float,
        detector: String,
        memory: Memory = Memory(),
        cells: Boolean = false,
        global: FloatArray? = null,
    ): Features {
        val h = photo.validHeight
        val w = photo.validWidth
        val peaks = Keypoints.detect(
            raw.scores(memory), photo.inputWidth, h, w, maxKeypoints, nmsRadius, threshold, BORDER, memory,
        )
        val found = if (detector != Description.BLOBS) peaks else {
            val blobs = Blobs.find(photo.pixels, photo.inputWidth, h, w, maxKeypoints * 2 / 3, memory)
            Blobs.combine(blobs, peaks, maxKeypoints, memory)
        }
        val vector = global ?: raw.globalDescriptor.values(memory, "global: values")
        val size = global?.size ?: raw.globalDescriptor.size
        val described = memory.bytes("global", size) // of one size in every call
        Keypoints.quantize(vector, 0, size, described, 0)
        return Features(
            found.size,
            toCamera(photo, found.xy, found.size, memory),
            found.scores,
            Keypoints.descriptors(raw.descriptorMaps, found.xy, found.size, memory),
            described,
            photo.pixel,
            if (cells) raw.hypercolumns?.let { touched(it, photo) } else null,
            memory,
        )
    }

    private fun vector(values: FloatArray) = Output.of(values, 1, 1, values.size)

    private fun toCamera(photo: Photo, xy: FloatArray, n: Int, memory: Memory): DoubleArray {
        val out = memory.doubles("keypoints: in the camera's image", 2 * n)
        for (i in 0 until 2 * n step 2) photo.toCamera(xy[i].toDouble(), xy[i + 1].toDouble(), out, i)
        return out
    }

    private fun touched(hypercolumns: Output, photo: Photo): Hypercolumns {
        val cell = Keypoints.CELL
        return Hypercolumns(
            DenseSearch.cells(hypercolumns, photo.validHeight, photo.validWidth),
            (photo.validHeight + cell - 1) / cell,
            (photo.validWidth + cell - 1) / cell,
            photo::toCamera,
        )
    }
}
