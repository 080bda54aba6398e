"""The one façade of command line, chat and Python API: models, read documents, answers."""
