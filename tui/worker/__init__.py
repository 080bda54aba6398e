"""The thread that owns the model, its jobs and its events."""
