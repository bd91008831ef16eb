"""What `paperlab new` starts a paper from: four small examples that run and are tested as they are."""
