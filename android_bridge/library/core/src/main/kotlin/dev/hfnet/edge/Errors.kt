package dev.hfnet.edge

/** What went wrong and what to do about it: everything that this library throws on bad input. */
public open class HFNetEdgeException(
    /** What went wrong. */
    public val problem: String,
    /** What to do about it. */
    public val remedy: String,
    cause: Throwable? = null,
) : RuntimeException("$problem; $remedy", cause)

/** A map is missing, truncated, damaged, or no map. */
public open class MapFormatException(problem: String, remedy: String, cause: Throwable? = null) :
    HFNetEdgeException(problem, remedy, cause)

/** A map of another major version. */
public class MapVersionException(problem: String, remedy: String) : MapFormatException(problem, remedy)

/** A network's file is missing, damaged, or no network, or it cannot be run. */
public class ModelException(problem: String, remedy: String, cause: Throwable? = null) :
    HFNetEdgeException(problem, remedy, cause)

/** Networks, map and query do not belong together. */
public class MismatchException(problem: String, remedy: String) : HFNetEdgeException(problem, remedy)

/** A query asks for more work than any map made in good faith does (SPEC, section 10.3). */
public class SearchLimitException(problem: String, remedy: String) : HFNetEdgeException(problem, remedy)

/** What a caller gave makes no sense. */
public open class InputException(problem: String, remedy: String, cause: Throwable? = null) :
    HFNetEdgeException(problem, remedy, cause)

/** A camera is unknown, or of another size than the image. */
public class CameraException(problem: String, remedy: String) : InputException(problem, remedy)

/** An image does not decode, or is none. */
public class ImageException(problem: String, remedy: String, cause: Throwable? = null) :
    InputException(problem, remedy, cause)
