"""Click-through-rate models: one paper a file, baselines and known-truth logs beside them."""
