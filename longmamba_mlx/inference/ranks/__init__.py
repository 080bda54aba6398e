"""One document read by several processes or machines: a wave that runs along spans of it and through the layers."""
