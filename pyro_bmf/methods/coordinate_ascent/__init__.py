"""Exact coordinate ascent with full-covariance rows."""
