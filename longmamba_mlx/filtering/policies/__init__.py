"""Filter policies: how thresholds are chosen for a document length."""
