"""The slash commands: one table, and one module per group of it."""
