"""From 2D-3D matches to a pose and how certain it is: first pose ─> refinement ─> what supports it."""
