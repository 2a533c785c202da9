"""Readers of text files in blocks of lines, with bounded memory; every bad row is counted."""
