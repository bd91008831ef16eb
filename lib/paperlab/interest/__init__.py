"""Models of a user's interest from a history of events: one paper a file."""
