"""Checks of a fitted posterior: predictive checks, LOO, diagnoses, sensitivity, elicitation, calibration."""
