"""Cross feedback with an exact head: rows by their conditional, their prior means by an encoder, by SVI."""
