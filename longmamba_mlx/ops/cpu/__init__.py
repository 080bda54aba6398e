"""The CPU backends: NumPy, and loops that numba compiles."""
