"""What each paper makes of a photo's features: 2D-3D matches with a map's landmarks."""
