"""Blocked Gibbs sweeps, and the posterior as draws of a chain."""
