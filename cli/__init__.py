"""The `pyro-bmf` command: one file a command, no mathematics.

This folder is installed as `pyro_bmf.cli`. Its files import each other relatively (``from .output …``),
so that type checkers can follow.
"""
