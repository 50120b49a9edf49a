"""Targets: what the decoder predicts, and its loss."""
