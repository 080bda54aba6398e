"""Text to token ids and back: tokenizer, prompt form, chat templates, token counts and offsets."""
