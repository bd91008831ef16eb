"""Multi-task models that stand beside the papers."""
