package dev.hfnet.edge.map

/** Where a map is on Earth (SPEC, section 14). */
public class Georeference private constructor(
    /** Latitude and longitude of WGS 84, degrees, and altitude, metres. */
    public val origin: DoubleArray,
    /** Of a unit of the map. */
    public val metres: Double,
    private val rotation: DoubleArray,
    private val translation: DoubleArray,
    /** Metres, root mean square of what it was found by. */
    public val residual: Double,
) {
    /** Metres east, north and up of [origin], of a point of the map's world. */
    public fun toEnu(point: DoubleArray): DoubleArray = DoubleArray(3) { i ->
        var sum = 0.0
        for (j in 0 until 3) sum += rotation[3 * i + j] * point[j]
        metres * sum + translation[i]
    }

    public companion object {
        /** A map's; null: it has none. Throws [dev.hfnet.edge.MapFormatException]: it is damaged. */
        @JvmStatic
        public fun of(map: LocalizationMap): Georeference? {
            val file = map.file
            if (!file.has(Section.GEOREFERENCE)) return null
            file.shaped(Section.GEOREFERENCE, 96)
            val row = file.use(Section.GEOREFERENCE)
            val v = DoubleArray(12) { row.getDouble(8 * it) }
            var square = 0.0
            for (i in 4 until 8) square += v[i] * v[i]
            val right = v.all { Math.abs(it) <= Double.MAX_VALUE } && Math.abs(v[0]) <= 90 && Math.abs(v[1]) <= 180 &&
                Math.abs(v[2]) <= 1e5 && v[3] in 1e-6..1e6 && v[11] >= 0 && Math.abs(Math.sqrt(square) - 1) <= 1e-6 &&
                (8 until 11).all { Math.abs(v[it]) < 1e12 }
            if (!right) throw file.fail("its georeference is out of bounds")
            val (w, x, y, z) = v.slice(4 until 8)
            val rotation = doubleArrayOf(
                1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
                2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
                2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
            )
            return Georeference(v.copyOf(3), v[3], rotation, v.copyOfRange(8, 11), v[11])
        }
    }
}
