"""The façade of the command line, the chat and the Python API: models, read documents, answers."""
