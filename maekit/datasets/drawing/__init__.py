"""Sample pictures that maekit draws: numpy for light and texture, Pillow for polygons."""
