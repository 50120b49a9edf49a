"""Recipes: YAML with parents and overrides to a checked ``Recipe``, with places for errors."""
