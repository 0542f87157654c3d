"""The commands of `pyro-bmf experiment`, one file each."""
