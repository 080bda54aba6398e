"""Measured mass curves of a model, how they are collected, and a report on them."""
