"""Loaders of real data sets, one a file: ``load(entry, **options)``, named by data/catalogue.toml."""
