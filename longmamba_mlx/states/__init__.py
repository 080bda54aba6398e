"""Stored states: the file format, the store, its size limit, transfer, and checkpoints."""
