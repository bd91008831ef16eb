"""Feedback of several kinds: orders after clicks, late conversions, watch time, and drift."""
