"""Which models there are: names, folders, Hub ids and the table of known models."""
