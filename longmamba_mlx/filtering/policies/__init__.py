"""Filter policies, one class in a file; `filtering.registry` lists them."""
