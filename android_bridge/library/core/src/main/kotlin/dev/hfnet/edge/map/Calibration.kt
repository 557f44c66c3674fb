package dev.hfnet.edge.map

/** How a map moves the points that say how probably a pose is right (SPEC, section 11). */
public class Calibration internal constructor(
    public val rightSlope: Int,
    public val rightOffset: Int,
    public val preciseSlope: Int,
    public val preciseOffset: Int,
    /** Left-out images that it was fitted on. */
    public val images: Long,
) {
    /** Points of being right, moved. */
    public fun right(points: Int): Int = moved(points, rightSlope, rightOffset)

    /** Points of being within the tolerance, moved. */
    public fun precise(points: Int): Int = moved(points, preciseSlope, preciseOffset)

    private fun moved(points: Int, slope: Int, offset: Int): Int =
        (Math.floorDiv(points.toLong() * slope, 4096L) + offset).coerceIn(-LARGEST, LARGEST).toInt()

    public companion object {
        private const val LARGEST = 14000L
        private const val MAX_SLOPE = 16384

        /** A map's; points stay as they are where it has none. Throws [dev.hfnet.edge.MapFormatException]. */
        @JvmStatic
        public fun of(map: LocalizationMap): Calibration {
            if (!map.file.has(Section.CALIBRATION)) return Calibration(4096, 0, 4096, 0, 0)
            map.file.shaped(Section.CALIBRATION, 20)
            val row = map.file.use(Section.CALIBRATION)
            val n = IntArray(4) { row.getInt(4 * it) }
            val right = n[0] in 1..MAX_SLOPE && n[2] in 1..MAX_SLOPE && Math.abs(n[1].toLong()) <= LARGEST &&
                Math.abs(n[3].toLong()) <= LARGEST && row.uint(16) <= 1L shl 24
            if (!right) throw map.file.fail("its calibration moves points by ${n.toList()}")
            return Calibration(n[0], n[1], n[2], n[3], row.uint(16))
        }
    }
}
