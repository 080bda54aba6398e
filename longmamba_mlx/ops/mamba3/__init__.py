"""Mamba-3's scan (arXiv 2603.15569) with LongMamba's filter; docs/mamba3.md derives what the filter means here."""
