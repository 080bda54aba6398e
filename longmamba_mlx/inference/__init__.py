"""Prefill and decode: token ids and states, never text."""
