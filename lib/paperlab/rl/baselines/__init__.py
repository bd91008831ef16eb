"""Offline agents that papers are compared with, one a file."""
