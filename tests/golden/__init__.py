"""Golden vectors: small images made by code, and what every stage of the pipeline makes of them, as plain files.

    load ─> scale ─> network ─> scores ─> keypoints ─> filled ─> descriptors, global ─> decode
         ─> blobs ──────────────────────────────────┘
         ─> retrieval ─> places ─> compared ─> nearest ─> matches ─> pose ─> inliers
         ─> refinement ─> second_look ─> guided ─> evidence ─> probability ─> result
    prior, track, rig, session: what else is known of a query, and queries that belong together
    patches ─> signs ─> leaves ─> leaf_landmarks ─> search

A port to another language tests one stage at a time: each case starts from the golden result of the stage before.
`stages.STAGES` says which function specifies a stage, `write` makes the folder, `reader` reads it and asks the runtime.
"""
