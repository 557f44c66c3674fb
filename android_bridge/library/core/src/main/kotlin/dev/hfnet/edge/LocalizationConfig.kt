package dev.hfnet.edge

import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.trust.Tolerance

/**
 * Settings of the search; they are those of `hfnet_edge`, by the same names.
 *
 * @property method how landmarks are sought. @property priorFrameCount reference images that are retrieved; null: as the
 *   method's paper has it. @property priorLeafCount leaves of the random trees that are searched for each keypoint.
 * @property tolerance what [LocalizationResult.probability] speaks of. @property maxWrong how probable it may be that a
 *   pose that is given is wrong altogether. @property refineFocal find the focal length with the pose; the camera's own is
 *   where the search begins. @property maxError inlier threshold, pixels of the network's input. @property iterations of
 *   RANSAC, at most.
 * @throws InputException a value is out of its bounds.
 */
public class LocalizationConfig @JvmOverloads constructor(
    public val method: Method = Method.HIERARCHICAL,
    public val priorFrameCount: Int? = null,
    public val priorLeafCount: Int = 100,
    public val tolerance: Tolerance = Tolerance(),
    public val maxWrong: Double = 0.001,
    public val refineFocal: Boolean = false,
    public val maxError: Double = 8.0,
    public val iterations: Int = 10_000,
) {
    init {
        if (!(maxWrong >= MIN_WRONG && maxWrong < 1)) {
            throw InputException("maxWrong is $maxWrong", "give a share from $MIN_WRONG to 1, as 0.001")
        }
        if ((priorFrameCount ?: 1) < 1 || priorLeafCount < 1) {
            throw InputException("$priorFrameCount frames and $priorLeafCount leaves", "give 1 or more, or another method")
        }
        if (!(maxError > 0 && maxError <= Double.MAX_VALUE) || iterations < 1) {
            throw InputException("maxError is $maxError, iterations $iterations", "give pixels and a number above 0")
        }
    }

    private companion object {
        const val MIN_WRONG = 1e-5
    }
}
