"""Measure what a model remembers of long documents."""
