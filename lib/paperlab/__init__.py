"""Paperlab: one notebook a paper, backed by a thin library of Lightning modules."""

import os

# Threads of torch's OpenMP that wait by spinning take the cores from whoever else computes: two
# notebooks at once slow each other twenty-fold. A short spin costs nothing when alone. It is read
# when torch is first imported; a value that is set already stays.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
