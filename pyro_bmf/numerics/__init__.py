"""Formulas that several rooms need, each in one place."""
