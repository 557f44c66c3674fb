package dev.hfnet.edge.map

import dev.hfnet.edge.Pose
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.sin
import kotlin.math.sqrt

/**
 * Where a map is on Earth (SPEC, section 14). Within 10 km of the origin the ellipsoid's curvature is that of two
 * circles: a degree of latitude and one of longitude have one length each.
 */
public class Georeference internal constructor(
    /** Latitude and longitude of WGS 84, degrees, and altitude, metres. */
    public val origin: DoubleArray,
    /** Of a unit of the map. */
    public val metres: Double,
    private val enuFromMap: Pose,
    /** Metres, root mean square of what it was found by. */
    public val residual: Double,
) {
    /** The direction of up in the map's frame, of unit length. */
    public val up: DoubleArray get() = enuFromMap.rotation.copyOfRange(6, 9)

    /** Metres east, north and up of [origin], of a point of the map's world. */
    public fun toEnu(point: DoubleArray): DoubleArray = enuFromMap.transform(DoubleArray(3) { metres * point[it] })

    /** The point of the map's frame at a place on Earth, degrees and metres; at the origin's altitude without one. */
    @JvmOverloads
    public fun toMap(latitude: Double, longitude: Double, altitude: Double = origin[2]): DoubleArray {
        val (byLatitude, byLongitude) = metresPerDegree(origin[0])
        val east = ((longitude - origin[1] + 180).mod(360.0) - 180) * byLongitude
        val enu = doubleArrayOf(east, (latitude - origin[0]) * byLatitude, altitude - origin[2])
        val t = enuFromMap.translation
        val r = enuFromMap.r
        return DoubleArray(3) { axis -> (0 until 3).sumOf { r[3 * it + axis] * (enu[it] - t[it]) } / metres }
    }

    /** Latitude, longitude and altitude of a point of the map's frame. */
    public fun toWgs84(point: DoubleArray): DoubleArray {
        val (byLatitude, byLongitude) = metresPerDegree(origin[0])
        val (east, north, up) = toEnu(point)
        return doubleArrayOf(origin[0] + north / byLatitude, origin[1] + east / byLongitude, origin[2] + up)
    }

    public companion object {
        private const val SEMI_MAJOR = 6378137.0
        private const val FLATTENING = 1 / 298.257223563

        /** Of latitude and of longitude, at a latitude in degrees. */
        private fun metresPerDegree(latitude: Double): DoubleArray {
            val sine = sin(Math.toRadians(latitude))
            val e2 = FLATTENING * (2 - FLATTENING)
            val across = SEMI_MAJOR / sqrt(1 - e2 * sine * sine)
            val along = across * (1 - e2) / (1 - e2 * sine * sine)
            return doubleArrayOf(Math.toRadians(along), Math.toRadians(across * cos(Math.toRadians(latitude))))
        }

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
            val right = v.all { abs(it) <= Double.MAX_VALUE } && abs(v[0]) <= 90 && abs(v[1]) <= 180 &&
                abs(v[2]) <= 1e5 && v[3] in 1e-6..1e6 && v[11] >= 0 && abs(sqrt(square) - 1) <= 1e-6 &&
                (8 until 11).all { abs(v[it]) < 1e12 }
            if (!right) throw file.fail("its georeference is out of bounds")
            return Georeference(v.copyOf(3), v[3], Pose.of(v.copyOfRange(4, 11)), v[11])
        }
    }
}
