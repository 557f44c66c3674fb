"""This package makes pixels of an image file, and keypoints, descriptors and patches of pixels."""
