"""Text to token ids and back, prompt formats and chat templates."""
