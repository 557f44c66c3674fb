package dev.hfnet.edge.prior

import dev.hfnet.edge.InputException
import kotlin.math.abs

/**
 * A fix on Earth.
 *
 * @property latitude degrees of WGS 84. @property longitude the same. @property accuracy metres, as receivers state it:
 *   68 % are nearer.
 * @throws InputException a value is not finite, or out of its bounds.
 */
public class Gps @JvmOverloads constructor(
    public val latitude: Double,
    public val longitude: Double,
    public val accuracy: Double = 10.0,
) {
    init {
        val right = abs(latitude) <= 90 && abs(longitude) <= 180 && accuracy > 0 && accuracy <= Double.MAX_VALUE
        if (!right) {
            throw InputException("gps is $latitude, $longitude within $accuracy m", "give degrees, and metres above 0")
        }
    }
}
