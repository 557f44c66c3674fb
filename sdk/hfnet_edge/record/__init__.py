"""What one machine makes of a list of queries, kept and timed."""
