package dev.hfnet.edge.prior

import dev.hfnet.edge.InputException
import dev.hfnet.edge.map.Georeference
import dev.hfnet.edge.map.LocalizationMap
import kotlin.math.abs
import kotlin.math.atan2
import kotlin.math.hypot

/**
 * What is known of one query beforehand; each may be left out. It decides which reference images are retrieved, and a
 * pose that contradicts it is not given. It may be wrong itself.
 *
 * @param position about where the camera is, in the map's frame, as the last pose's `center`.
 * @param radius how far it is off at most, map units.
 * @param gps about where it is on Earth, in a map that knows its place there.
 * @param gravity the direction of gravity in the axes of the camera as the frame is stored (x right, y down, z
 *   forward), of any length. @param images names of reference images, or patterns of them as in a shell.
 * @throws InputException a value is not finite, or out of its bounds.
 */
public class Prior @JvmOverloads constructor(
    position: DoubleArray? = null,
    public val radius: Double? = null,
    public val gps: Gps? = null,
    gravity: DoubleArray? = null,
    images: List<String> = emptyList(),
) {
    private val at = position?.copyOf()
    private val down = gravity?.copyOf()

    /** Names of reference images, or patterns of them; none: all. */
    public val images: List<String> = images.toList()

    init {
        checkFinite("position", at)
        checkFinite("gravity", down)
        if ((at == null) != (radius == null)) {
            throw InputException("position and radius go together", "give both: where the camera is, and how far off")
        }
        if (radius != null && !(radius > 0 && radius <= Double.MAX_VALUE)) {
            throw InputException("radius is $radius", "give map units above 0")
        }
        if (down != null && down.all { it == 0.0 }) {
            throw InputException("gravity is zero", "give the direction in which things fall, in the camera's axes")
        }
    }

    public val position: DoubleArray? get() = at?.copyOf()
    public val gravity: DoubleArray? get() = down?.copyOf()

    /** Degrees clockwise by which the frame is upright, by gravity; null: it does not say. */
    public val rotation: Int?
        get() {
            val (x, y, _) = down ?: return null
            if (hypot(x, y) < LEVEL * length(down)) return null
            return Math.rint(Math.toDegrees(atan2(x, y)) / 90).toInt().mod(4) * 90
        }

    /**
     * What it means in a map.
     *
     * @throws InputException [images] fits none, or the map's place on Earth is not known.
     * @throws dev.hfnet.edge.MapFormatException the map is damaged there.
     */
    public fun inMap(map: LocalizationMap): Known = inMap(map, Georeference.of(map))

    internal fun inMap(map: LocalizationMap, earth: Georeference?): Known {
        val disks = ArrayList<Disk>()
        if (at != null && radius != null) disks.add(Disk("position", at, radius))
        if (gps != null) {
            if (earth == null) {
                throw InputException("the map does not know its place on Earth", "say it with `hfnet-map georeference`")
            }
            val there = earth.toMap(gps.latitude, gps.longitude)
            disks.add(Disk("GPS", there, CERTAIN * gps.accuracy / earth.metres, earth.up))
        }
        var among = if (images.isEmpty()) null else named(map)
        if (disks.isNotEmpty()) {
            val centers = map.inWorld(map.views.centers)
            for (disk in disks) among = both(among, disk.images(centers))
        }
        return Known(among, disks, down?.let { unit(it) }, earth, this)
    }

    private fun named(map: LocalizationMap): BooleanArray {
        val names = map.imageNames
        val patterns = images.map { ShellPattern(it) }
        val among = BooleanArray(names.size) { image -> patterns.any { it.matches(names[image]) } }
        if (true !in among) {
            throw InputException(
                "no reference image of the map is called ${images.joinToString()}",
                "names look like ${names.firstOrNull()}",
            )
        }
        return among
    }

    /** Where nothing is in both, the first. */
    private fun both(first: BooleanArray?, second: BooleanArray): BooleanArray {
        if (first == null) return second
        val both = BooleanArray(first.size) { first[it] && second[it] }
        return if (true in both) both else first
    }

    internal companion object {
        const val CERTAIN = 3.0 // standard deviations
        private const val LEVEL = 0.35 // of gravity in the image's plane, below which no side is upright

        private fun length(v: DoubleArray) = hypot(hypot(v[0], v[1]), v[2])

        private fun unit(v: DoubleArray): DoubleArray {
            val length = length(v)
            return DoubleArray(3) { v[it] / length }
        }

        private fun checkFinite(name: String, values: DoubleArray?) {
            if (values != null && !(values.size == 3 && values.all { abs(it) <= Double.MAX_VALUE })) {
                throw InputException("$name is ${values.joinToString()}", "give 3 finite numbers")
            }
        }
    }
}
