package dev.hfnet.edge.record

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Frame
import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.Localizer
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import dev.hfnet.edge.image.Keypoints
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.networks.Kind
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.shell.Clock
import dev.hfnet.edge.shell.Json
import java.io.OutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/**
 * Keeps every stage of localized queries, as `hfnet-parity` compares them: the file of `hfnet_edge.record.recording_file`,
 * format 2.
 */
public class Recorder(private val localizer: Localizer) {
    private val arrays = LinkedHashMap<String, ByteArray>()
    private val queries = ArrayList<Map<String, Any?>>()

    /** Localizes a query and keeps what came of it. Throws as [Localizer.localize]. */
    public fun record(name: String, frame: Frame, camera: Camera): LocalizationResult {
        val clock = Clock()
        val hashes = LinkedHashMap<String, String>()
        val at = queries.size
        val memory = Memory()
        val photo = clock.time("load") { localizer.photo(frame, camera, memory) }
        val query = localizer.look(photo, memory, clock) { role, output ->
            hashes[role] = digest(floats(output.toFloats()))
            arrays["$at/outputs/$role"] = sketch(role, output)
        }
        val result = localizer.oneMap("a recording").localize(query, camera, null, clock)
        val dim = (localizer.networks.patches ?: localizer.networks.image).description.localDim
        val features = query.features!!.own(dim)
        arrays["$at/thumbnail"] = thumbnail(photo)
        arrays["$at/features/keypoints"] = npy("<f8", intArrayOf(features.size, 2), doubles(features.keypoints))
        arrays["$at/features/scores"] = npy("<f4", intArrayOf(features.size), floats(features.scores))
        arrays["$at/features/descriptors"] = npy("|i1", intArrayOf(features.size, dim), features.descriptors)
        val global = features.globalDescriptor
        arrays["$at/features/global_descriptor"] = npy("|i1", intArrayOf(global.size), global)
        result.candidate?.covariance?.let { arrays["$at/covariance"] = npy("<f8", intArrayOf(6, 6), doubles(it)) }
        keepMatches(at, result)
        queries.add(
            linkedMapOf(
                "name" to name,
                "camera" to listOf<Any>(camera.model, camera.width, camera.height) + camera.params.asList(),
                "input_hash" to digest(inputOf(photo)),
                "output_hashes" to hashes,
                "pixel" to features.pixel,
                "prior_frames" to result.priorFrames.map { localizer.map.imageNames[it] },
                "status" to result.status.name,
                "pose" to result.pose?.let { it.quaternion + it.translation },
                "probability" to result.probability,
                "wrong" to result.wrong,
            ),
        )
        return result
    }

    /**
     * Writes all that was recorded, and closes [out].
     *
     * @param about what ran where, beside what is known of method, solver and networks.
     * @param files the networks' in the localizer's order, and the map's, as they are.
     */
    public fun write(out: OutputStream, about: Map<String, String>, networks: List<ByteArray>, map: ByteArray) {
        val names = localizer.map.imageNames
        val poses = DoubleArray(7 * names.size)
        for (image in names.indices) localizer.map.pose(image).copyInto(poses, 7 * image)
        val manifest = linkedMapOf(
            "format" to FORMAT,
            "about" to aboutNetworks(networks) + ("map_hash" to digest(map)) + about,
            "references" to names,
            "queries" to queries,
        )
        ZipOutputStream(out).use { zip ->
            fun add(name: String, content: ByteArray) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
                zip.closeEntry()
            }
            add("manifest.json", Json.write(manifest).toByteArray())
            add("references.npy", npy("<f8", intArrayOf(names.size, 7), doubles(poses)))
            for ((name, content) in arrays) add("$name.npy", content)
        }
    }

    private fun keepMatches(at: Int, result: LocalizationResult) {
        val matches = result.matches ?: return
        val mask = result.candidate?.inlierMask ?: BooleanArray(matches.size)
        val keypoints = matches.keypoints
        val order = if (keypoints == null) matches.xy.indices.take(matches.size)
        else (0 until matches.size).sortedBy { keypoints[it] }
        fun rows(of: IntArray) = npy("<i8", intArrayOf(of.size), longs(LongArray(of.size) { of[order[it]].toLong() }))
        matches.keypoints?.let { arrays["$at/matched/keypoints"] = rows(it) }
        matches.landmarks?.let { arrays["$at/matched/landmarks"] = rows(it) }
        val xyz = DoubleArray(3 * matches.size) { matches.xyz[3 * order[it / 3] + it % 3] }
        arrays["$at/matched/xyz"] = npy("<f8", intArrayOf(matches.size, 3), doubles(xyz))
        val inliers = ByteArray(matches.size) { if (mask[order[it]]) 1 else 0 }
        arrays["$at/matched/inliers"] = npy("|b1", intArrayOf(matches.size), inliers)
    }

    private fun aboutNetworks(contents: List<ByteArray>): Map<String, String> {
        val found = linkedMapOf("method" to localizer.config.method.label, "solver" to "usac")
        for ((network, content) in localizer.networks.toList().zip(contents)) {
            val prefix = PREFIXES.getValue(network.description.kind)
            found["${prefix}kernels"] = network.kernels
            found["${prefix}precision"] = network.description.precision
            found["${prefix}weights_hash"] = network.description.weightsHash
            found["${prefix}model_hash"] = digest(content)
        }
        return found
    }

    private companion object {
        const val FORMAT = 2
        const val SKETCH = 8
        const val HASH_DIGITS = 32
        val PREFIXES =
            mapOf(Kind.IMAGE to "", Kind.PATCHES to "patch_", Kind.SCENE to "scene_", Kind.RETRIEVAL to "retrieval_")

        /** 32 hex digits of SHA-256. */
        fun digest(content: ByteArray): String = MessageDigest.getInstance("SHA-256").digest(content)
            .joinToString("") { String.format("%02x", it) }.take(HASH_DIGITS)

        /** The pixels that the network sees, and which of them are the image. */
        fun inputOf(photo: Photo): ByteArray {
            val sizes = intArrayOf(photo.validHeight, photo.validWidth, photo.inputHeight, photo.inputWidth)
            val head = little(16)
            sizes.forEach { head.putInt(it) }
            return head.array() + photo.pixels
        }

        fun thumbnail(photo: Photo): ByteArray {
            val cell = Keypoints.CELL
            val h = photo.inputHeight / cell
            val w = photo.inputWidth / cell
            val pixels = ByteArray(h * w) {
                photo.pixels[(it / w * cell + cell / 2) * photo.inputWidth + it % w * cell + cell / 2]
            }
            return npy("|u1", intArrayOf(h, w), pixels)
        }

        /** Cells of a dense output whose column + 3 row is a multiple of [SKETCH], (N, channels); a vector whole. */
        fun sketch(role: String, output: Output): ByteArray {
            if (role == Role.GLOBAL) return npy("<f4", intArrayOf(output.size), floats(output.toFloats()))
            val cell = Keypoints.CELL
            val scores = role == Role.KEYPOINT_SCORES
            val h = if (scores) output.width / cell else output.height
            val w = if (scores) output.channels / cell else output.width
            val channels = if (scores) cell * cell else output.channels
            val cells = (0 until h * w).filter { (it % w + 3 * (it / w)) % SKETCH == 0 }
            val rows = FloatArray(cells.size * channels) { at ->
                val y = cells[at / channels] / w
                val x = cells[at / channels] % w
                val c = at % channels
                if (scores) output[(y * cell + c / cell) * output.channels + x * cell + c % cell]
                else output[(y * w + x) * channels + c]
            }
            return npy("<f4", intArrayOf(cells.size, channels), floats(rows))
        }

        /** An array as numpy's format has it, version 1. */
        fun npy(dtype: String, shape: IntArray, values: ByteArray): ByteArray {
            val sides = shape.joinToString(", ") + if (shape.size == 1) "," else ""
            val about = "{'descr': '$dtype', 'fortran_order': False, 'shape': ($sides), }"
            val padding = (64 - (11 + about.length) % 64) % 64
            val text = about + " ".repeat(padding) + "\n"
            val head = little(10).put(0x93.toByte()).put("NUMPY".toByteArray()).put(1).put(0).putShort(text.length.toShort())
            return head.array() + text.toByteArray() + values
        }

        fun floats(values: FloatArray): ByteArray {
            val out = little(4 * values.size)
            for (value in values) out.putFloat(value)
            return out.array()
        }

        fun doubles(values: DoubleArray): ByteArray {
            val out = little(8 * values.size)
            for (value in values) out.putDouble(value)
            return out.array()
        }

        fun longs(values: LongArray): ByteArray {
            val out = little(8 * values.size)
            for (value in values) out.putLong(value)
            return out.array()
        }

        fun little(size: Int): ByteBuffer = ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN)
    }
}
