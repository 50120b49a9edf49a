"""Weights files: read, recognized, checked, resized, written, in maekit's format and others'."""
