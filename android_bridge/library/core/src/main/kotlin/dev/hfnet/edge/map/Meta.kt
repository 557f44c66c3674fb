package dev.hfnet.edge.map

import dev.hfnet.edge.FlatTable

/** What META says of a map (SPEC, section 5). Names and letters are the document's. */
public class Meta internal constructor(
    public val generator: String,
    public val architecture: String,
    public val weightsHash: String,
    public val precision: String,
    public val localDim: Int,
    public val globalDim: Int,
    public val imageCount: Long,
    public val landmarkCount: Long,
    public val observationCount: Long,
    public val originX: Double,
    public val originY: Double,
    public val originZ: Double,
    public val extractorGlobalDim: Int,
    public val codec: String,
    public val codeDim: Int,
    public val subspaces: Int,
    public val countBits: Int,
    public val descriptorCount: Long,
    public val globalWeightsHash: String,
    public val hypercolumnDim: Int,
    public val hypercolumnCodec: String,
    public val hypercolumnCodeDim: Int,
    public val hypercolumnSubspaces: Int,
    public val localRole: String,
) {
    /** Whether a patch network describes the landmarks. */
    public val ofPatches: Boolean
        get() = localRole.ifEmpty { if (globalWeightsHash.isEmpty()) LOCAL else PATCH } == PATCH

    internal companion object {
        const val MAX_BYTES = 65536L
        const val MAX_DIM = 1040L
        const val MAX_GLOBAL_DIM = 4096L
        const val MAX_ORIGIN = 1e15
        const val LOCAL = "local_descriptors"
        const val PATCH = "patch_descriptors"

        fun of(file: MapBytes): Meta {
            if (file.length(Section.META) > MAX_BYTES) throw file.fail("META has ${file.length(Section.META)} bytes")
            val t = FlatTable.root(file.use(Section.META), 0) { what, cause -> file.fail("META: $what", cause) }
            val local = t.uint(4)
            val global = t.uint(5)
            val extractor = t.uint(12)
            val hypercolumn = t.uint(20)
            val origin = doubleArrayOf(t.double(9), t.double(10), t.double(11))
            val bits = t.ubyte(16)
            fun text(field: Int): String {
                val text = t.string(field, MAX_BYTES.toInt())
                if (!text.all { it in ' '..'~' }) throw file.fail("META: a string is not printable ASCII")
                return text
            }

            /** A number that its user bounds far below this. */
            fun capped(field: Int) = minOf(t.uint(field), 1L shl 30).toInt()
            fun require(condition: Boolean, what: String) {
                if (!condition) throw file.fail("META: $what")
            }
            val role = text(24)
            require(local in 1..MAX_DIM && global in 1..extractor && extractor <= MAX_GLOBAL_DIM, "dimensions")
            require(hypercolumn <= MAX_DIM, "dimensions of hypercolumns")
            require(origin.all { Math.abs(it) < MAX_ORIGIN }, "the origin is not finite, or beyond every place")
            require(bits == 0 || bits == 2 || bits == 16, "count_bits is $bits")
            require(role.isEmpty() || role == LOCAL || role == PATCH, "local_role is $role")
            val landmarks = t.uint(7)
            val descriptors = t.uint(17)
            require(bits != 0 || descriptors == landmarks, "$descriptors descriptors of $landmarks landmarks")
            return Meta(
                text(0), text(1), text(2), text(3), local.toInt(), global.toInt(), t.uint(6), landmarks,
                t.uint(8), origin[0], origin[1], origin[2], extractor.toInt(), text(13), capped(14), capped(15),
                bits, descriptors, text(19), hypercolumn.toInt(), text(21), capped(22), capped(23), role,
            )
        }
    }
}
