"""What language-model papers share: a tiny model, real checkpoints, log-probabilities, preference data."""
