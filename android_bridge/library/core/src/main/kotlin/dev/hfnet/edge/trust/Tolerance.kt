package dev.hfnet.edge.trust

import dev.hfnet.edge.InputException

/**
 * How far a pose may be from the truth: what a probability speaks of.
 *
 * @param position map units; where [relative], a share of the scene's depth. @param rotation degrees.
 * @throws InputException they are not positive numbers.
 */
public class Tolerance @JvmOverloads constructor(
    public val position: Double = 0.25,
    public val rotation: Double = 2.0,
    public val relative: Boolean = false,
) {
    init {
        if (!(position > 0 && position <= Double.MAX_VALUE && rotation > 0 && rotation <= 180)) {
            throw InputException("$position, $rotation is no tolerance", REMEDY)
        }
    }

    /** Map units, of a scene of this depth. */
    internal fun positionAt(depth: Double) = if (relative) position * depth else position

    public companion object {
        private const val REMEDY = "write \"0.25,2\" (map units, degrees) or \"1%,2\""

        /** Reads "0.25,2" (map units, degrees) or "1%,2" (of the scene's depth, degrees). Throws [InputException]. */
        @JvmStatic
        public fun parse(text: String): Tolerance {
            val parts = text.split(",").map { it.trim() }
            val relative = parts[0].endsWith("%")
            val position = parts[0].trimEnd('%').toDoubleOrNull()
            val rotation = parts.getOrNull(1)?.toDoubleOrNull()
            if (parts.size != 2 || position == null || rotation == null) {
                throw InputException("\"$text\" is no tolerance", REMEDY)
            }
            return Tolerance(if (relative) position / 100 else position, rotation, relative)
        }
    }
}
