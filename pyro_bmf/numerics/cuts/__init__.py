"""Cut points of an ordered probit: their prior, Newton steps, and draws of them and of utilities."""
