"""Parsers of document formats; they run in the child process that `longmamba_mlx.documents.child` starts."""
