"""How maekit draws its own sample pictures: numpy for light and texture, Pillow for polygons."""
