"""Backbones: encoders of the visible tokens."""
