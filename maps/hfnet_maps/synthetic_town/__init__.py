"""A place made by code, so that everything runs without any data."""
