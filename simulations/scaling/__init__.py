"""How time and memory grow: with samples, classes, image size, width of the network, and clients."""
