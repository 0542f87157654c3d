"""Moves of a sweep along directions in which single updates creep."""
