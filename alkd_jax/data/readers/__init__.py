"""Readers of datasets in the formats that their publishers use, one module a format."""
