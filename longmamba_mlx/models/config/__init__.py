"""Configurations of the model families: one frozen form, and a bounded parser for each dialect."""
