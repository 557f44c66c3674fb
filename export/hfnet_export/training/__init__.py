"""Training: runs, stages, views, teachers and losses."""
