"""Full-text search in a document: related passages for an answer."""
