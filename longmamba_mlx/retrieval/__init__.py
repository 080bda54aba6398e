"""Full-text search in a document: passages related to a question and its answer."""
