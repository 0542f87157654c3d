"""Likelihoods of a rating given its linear predictor."""
