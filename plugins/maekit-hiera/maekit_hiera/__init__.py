"""Hierarchical encoders for maekit: Hiera and HiViT, which leave masked units out."""
