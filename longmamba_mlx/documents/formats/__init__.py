"""HTML, PDF, EPUB and DOCX -> text and places. Runs in a child process of its own (`longmamba_mlx.documents.child`)."""
