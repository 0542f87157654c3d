"""Priors of the rows of one side."""
