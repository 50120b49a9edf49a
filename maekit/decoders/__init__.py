"""Decoders: from encoded tokens to predictions at the queries."""
