"""The folder of a run: its files, its lock, and the types of its JSON."""
