"""Benchmarks against other people's code, side by side in one run: see ``run.py``."""
