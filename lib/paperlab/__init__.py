"""Paperlab: one notebook a paper, backed by a thin library of Lightning modules."""

__version__ = "0.1.0"
