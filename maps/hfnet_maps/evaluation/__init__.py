"""How far poses are from the true ones, and pictures of it."""
