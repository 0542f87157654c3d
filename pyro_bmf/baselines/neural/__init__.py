"""Neural networks that published comparisons measure against; their settings load no torch."""
