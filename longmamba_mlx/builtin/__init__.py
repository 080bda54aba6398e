"""The built-in models and the sample document: data only."""
