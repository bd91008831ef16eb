"""Data of your own: files or tables of one of six kinds, as named sets or in memory."""
