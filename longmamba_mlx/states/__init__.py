"""Read documents on disk: state files, the store, checkpoints of a running prefill."""
