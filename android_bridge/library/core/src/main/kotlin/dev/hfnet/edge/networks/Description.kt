package dev.hfnet.edge.networks

import dev.hfnet.edge.FlatTable
import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Keypoints
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

/**
 * What a network's file says of itself: metadata of the .tflite, with a checksum over the whole file, because
 * TensorFlow Lite checks little of a file before it runs it.
 */
public class Description internal constructor(
    /** For people. */
    public val architecture: String,
    /** 32 hexadecimal digits; the same weights at another precision or input size have the same. */
    public val weightsHash: String,
    /** "none" (float32), "fp16", "dynamic" or "int8". */
    public val precision: String,
    /** Rows of the input. */
    public val inputHeight: Int,
    /** Columns of the input. */
    public val inputWidth: Int,
    /** What grey level 0 is mapped to. */
    public val inputLow: Float,
    /** What grey level 255 is mapped to. */
    public val inputHigh: Float,
    /** Of the local descriptors, all parts together; 0 of a retrieval network. A scene network is given so many. */
    public val localDim: Int,
    /** Of the global descriptor; 0 of patch and scene networks. */
    public val globalDim: Int,
    /** Of the non-maximum suppression, pixels of the input. */
    public val nmsRadius: Int,
    /** Names in the default signature, by [Role]. */
    public val outputs: Map<String, String>,
    /** Versions that made the file. */
    public val toolchain: List<String>,
    /** Who finds keypoints: "network", or "blobs", to which the network adds its own. */
    public val detector: String,
) {
    /** By what the network gives. */
    public val kind: Kind
        get() = when {
            outputs.keys == setOf(Role.GLOBAL) -> Kind.RETRIEVAL
            Role.PATCH in outputs -> Kind.PATCHES
            Role.SCENE in outputs -> Kind.SCENE
            else -> Kind.IMAGE
        }

    private val levels by lazy {
        val step = ((inputHigh.toDouble() - inputLow.toDouble()) / 255).toFloat()
        FloatArray(256) { it.toFloat() * step + inputLow }
    }

    /** Writes grey levels as the network's input, from [inputLow] to [inputHigh], to [into], which has as many. */
    public fun scale(pixels: ByteArray, into: FloatArray) {
        val levels = levels
        for (i in pixels.indices) into[i] = levels[pixels[i].toInt() and 0xff]
    }

    /** The first field out of its bounds; null: none is. */
    private fun wrong(): String? {
        val names = listOf(architecture, weightsHash, precision) + outputs.values + toolchain
        if (!names.all { name -> name.length <= MAX_TEXT && name.all { it in ' '..'~' } }) {
            return "a name in its description is longer than $MAX_TEXT characters, or not of printable ASCII"
        }
        if (weightsHash.length != 32 || !weightsHash.all { it in '0'..'9' || it in 'a'..'f' }) {
            return "its weights' hash '$weightsHash' is not 32 hexadecimal digits"
        }
        if (precision !in PRECISIONS) return "its precision is '$precision', not one of ${PRECISIONS.joinToString()}"
        val needed = if (kind == Kind.IMAGE) outputs.keys - OPTIONAL else outputs.keys
        if (needed !in ROLES) {
            return "its outputs are ${outputs.keys.sorted().take(8)}; an HF-Net has ${Role.KEYPOINT_LOGITS} or " +
                "${Role.KEYPOINT_SCORES}, and ${Role.LOCAL} and ${Role.GLOBAL}, may have " +
                "${OPTIONAL.joinToString(" and ")}; a patch network has ${Role.PATCH}, a scene network " +
                "${Role.SCENE}, a retrieval network ${Role.GLOBAL}"
        }
        val sides = listOf(inputHeight, inputWidth)
        if (kind == Kind.SCENE) {
            val fits = inputHeight == 1 && (inputWidth == localDim || inputWidth == localDim + SceneNetwork.NUMBER)
            if (!fits) return "it takes rows of ${inputHeight}x$inputWidth, not of its $localDim dimensions"
        } else if (!sides.all { it in Keypoints.CELL..MAX_SIDE && it % Keypoints.CELL == 0 }) {
            return "its input is ${inputHeight}x$inputWidth, not multiples of ${Keypoints.CELL} up to $MAX_SIDE"
        }
        if (kind == Kind.PATCHES && sides != listOf(PatchNetwork.SIDE, PatchNetwork.SIDE)) {
            return "it takes patches of ${inputHeight}x$inputWidth, not ${PatchNetwork.SIDE}x${PatchNetwork.SIDE}"
        }
        if (!(inputLow >= -MAX_LEVEL && inputLow < inputHigh && inputHigh <= MAX_LEVEL)) {
            return "its input range is $inputLow to $inputHigh"
        }
        val locals = if (kind == Kind.RETRIEVAL) 0..0 else 1..MAX_LOCAL_DIM
        val globals = if (Role.GLOBAL in outputs) 1..MAX_GLOBAL_DIM else 0..0
        if (localDim !in locals || globalDim !in globals) {
            return "its descriptors have $localDim (local) and $globalDim (global) dimensions"
        }
        if (nmsRadius !in 0..MAX_NMS_RADIUS) {
            return "its radius of non-maximum suppression is $nmsRadius, not 0 to $MAX_NMS_RADIUS"
        }
        if (detector !in DETECTORS) return "its detector is '$detector', not one of ${DETECTORS.joinToString()}"
        return null
    }

    public companion object {
        /** The network finds its keypoints alone. */
        public const val NETWORK: String = "network"

        /** Keypoints are blobs, and the network's where none is near. */
        public const val BLOBS: String = "blobs"

        internal const val EXPORT_AGAIN = "export it again with `hfnet-export`"
        private const val METADATA = "HFNET_EDGE"
        private const val IDENTIFIER = 0x334c4654 // TFL3
        private const val CHECKSUM = 12 // the field
        private const val DIGITS = 64 // of the checksum, which counts as zeros
        private const val MAX_TEXT = 200
        private const val MAX_LINES = 64
        private const val MAX_SIDE = 4096
        private const val MAX_NMS_RADIUS = 64
        private const val MAX_LEVEL = 65535f
        private const val MAX_LOCAL_DIM = 1040
        private const val MAX_GLOBAL_DIM = 4096
        private val PRECISIONS = listOf("none", "fp16", "dynamic", "int8")
        private val DETECTORS = listOf(NETWORK, BLOBS)
        private val OPTIONAL = setOf(Role.LOCAL_QUARTER, Role.LOCAL_HALF, Role.HYPERCOLUMNS)
        private val ROLES = setOf(
            setOf(Role.PATCH), setOf(Role.SCENE), setOf(Role.GLOBAL),
            setOf(Role.KEYPOINT_LOGITS, Role.LOCAL, Role.GLOBAL),
            setOf(Role.KEYPOINT_SCORES, Role.LOCAL, Role.GLOBAL),
        )

        /** As the other, of bytes in an array. */
        @JvmStatic
        @Throws(ModelException::class)
        public fun read(content: ByteArray, where: String): Description = read(ByteBuffer.wrap(content), where)

        /**
         * Reads the description of a .tflite file, and checks the file against its checksum.
         *
         * @param content the whole file, from position 0 to the limit. @param where its name, for messages.
         * @throws ModelException it is not TensorFlow Lite's, lacks the description or the checksum, is damaged, or
         *   describes no network that could be run.
         */
        @JvmStatic
        @Throws(ModelException::class)
        public fun read(content: ByteBuffer, where: String): Description {
            val data = content.duplicate().order(ByteOrder.LITTLE_ENDIAN)
            data.position(0)
            if (data.limit() < 8 || data.getInt(4) != IDENTIFIER) {
                throw ModelException("$where is not a TFLite model", "export one with `hfnet-export`")
            }
            val damaged = { what: String, cause: Throwable? ->
                ModelException("$where is truncated or damaged: $what", EXPORT_AGAIN, cause)
            }
            val start = metadata(FlatTable.root(data, 0, damaged)) ?: throw ModelException(
                "$where is a TFLite model without hfnet-edge's description", "export it with `hfnet-export FILE`",
            )
            val table = FlatTable.root(data, start, damaged)
            if (!table.has(CHECKSUM)) {
                throw ModelException("$where has no checksum, so damage to it would go unnoticed", EXPORT_AGAIN)
            }
            val (at, length) = table.vector(CHECKSUM, 1)
            if (length != DIGITS || at < start) throw damaged("a checksum of another length", null)
            if (!checked(data, at)) {
                throw ModelException("$where is damaged (checksum)", "copy it again, or $EXPORT_AGAIN")
            }
            val wrong = { what: String -> ModelException("$where: $what", EXPORT_AGAIN) }
            val description = of(table, wrong)
            description.wrong()?.let { throw wrong(it) }
            return description
        }

        private fun of(t: FlatTable, wrong: (String) -> ModelException): Description {
            fun text(field: Int, from: FlatTable = t) = from.string(field, 4 * MAX_TEXT)
            val outputs = t.vector(10, 4).second
            val lines = t.vector(11, 4).second
            if (outputs > MAX_LINES) throw wrong("it has $outputs outputs")
            if (lines > MAX_LINES) throw wrong("its toolchain has $lines lines")
            val named = LinkedHashMap<String, String>()
            for (i in 0 until outputs) {
                val output = t.table(10, i.toLong())
                named[text(0, output)] = text(1, output)
            }
            return Description(
                text(0), text(1), text(2), t.int(3), t.int(4), t.float(5), t.float(6), t.int(7), t.int(8), t.int(9),
                named, List(lines) { t.string(11, it, 4 * MAX_TEXT) }, text(13).ifEmpty { NETWORK },
            )
        }

        /**
         * Where our metadata begins; null: nowhere. TensorFlow Lite's Model.metadata (field 6) holds tables of name (0)
         * and index (1) into Model.buffers (4), whose data is field 0.
         */
        private fun metadata(model: FlatTable): Int? {
            for (i in 0 until model.vector(6, 4).second) {
                val row = model.table(6, i.toLong())
                if (row.string(0, 4 * MAX_TEXT) == METADATA) return model.table(4, row.uint(1)).vector(0, 1).first
            }
            return null
        }

        private fun checked(data: ByteBuffer, at: Int): Boolean {
            val digest = MessageDigest.getInstance("SHA-256")
            fun add(from: Int, to: Int) {
                val part = data.duplicate()
                part.position(from).limit(to)
                digest.update(part)
            }
            add(0, at)
            digest.update(ByteArray(DIGITS) { '0'.code.toByte() })
            add(at + DIGITS, data.limit())
            val sum = digest.digest()
            for (i in sum.indices) {
                val hex = "%02x".format(sum[i])
                if (data.get(at + 2 * i) != hex[0].code.toByte() || data.get(at + 2 * i + 1) != hex[1].code.toByte()) {
                    return false
                }
            }
            return true
        }
    }
}
