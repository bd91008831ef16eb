"""Paperlab: one notebook a paper, backed by a thin library of Lightning modules."""

import os

# Threads of torch's OpenMP wait by spinning, and take the cores from whoever else computes: with the
# default spin two notebooks at once slow each other twenty-fold. With no spin to speak of, each
# operator wakes its threads anew, which costs a lone run a third. Some tenths of a millisecond is
# enough for both. libgomp reads it when torch is imported, in a notebook before paperlab: the kernel
# spec that the Makefile installs sets it there. A value that is set already stays.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__version__ = "0.1.0"
