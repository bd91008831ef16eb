"""Data of your own: files or tables of one of several kinds, as named sets or in memory."""
