"""Conversations: records, storage, export, prompt history."""
