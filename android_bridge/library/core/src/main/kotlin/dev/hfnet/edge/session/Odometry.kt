package dev.hfnet.edge.session

import dev.hfnet.edge.InputException
import dev.hfnet.edge.rig.Drift

/**
 * How a device's own motion drifts, standard deviations.
 *
 * @property distance share of the way. @property rotation degrees per metre. @property metres of a unit of the map.
 * @throws InputException one is not finite or below 0, or [metres] is 0.
 */
public class Odometry @JvmOverloads constructor(
    public val distance: Double = 0.01,
    public val rotation: Double = 0.2,
    public val metres: Double = 1.0,
) {
    init {
        for ((name, value) in listOf("distance" to distance, "rotation" to rotation, "metres" to metres)) {
            if (!(value >= 0 && value <= Double.MAX_VALUE) || name == "metres" && value == 0.0) {
                throw InputException("odometry's $name is $value", "give a number above 0")
            }
        }
    }

    /** Over a way in map units. */
    internal fun drift(way: Double) = Drift(distance * way, Math.toRadians(rotation * way * metres))
}
