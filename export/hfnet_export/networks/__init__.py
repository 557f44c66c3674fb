"""The networks in Keras, and the weights that come with the package."""
