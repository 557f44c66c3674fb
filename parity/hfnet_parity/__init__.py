"""On-device accuracy against a reference, stage by stage, in centimetres."""
