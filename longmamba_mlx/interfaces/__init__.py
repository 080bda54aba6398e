"""Remembered documents for other programs: an MCP server, an OpenAI-compatible server, a plugin of `llm`."""
