"""Simulators whose exact policy values are known."""
