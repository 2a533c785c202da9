"""Compilation for accelerators that are not there: the programs, the compilers, and what their texts say."""
