"""From reference images with known poses to landmarks and what they look like."""
