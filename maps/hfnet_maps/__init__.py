"""Building map files from images with known poses. Needs ``pip install hfnet-edge[maps]``."""
