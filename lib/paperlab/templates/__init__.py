"""What `paperlab new` copies: a small model, its test and its notebook, all of which work as they are."""
