"""Click models that papers are compared with, one a file."""
