"""Text to rows of styled cells."""
