"""Serving: export of a student to a folder, and recommendations from it without JAX, in NumPy or over HTTP."""
