"""Data sets: pictures, videos, torchvision's sets, and samples that maekit draws itself."""
