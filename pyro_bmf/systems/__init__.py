"""What all fitted systems share: a contract, raw ids, saved ratings. Importing it loads no torch."""
