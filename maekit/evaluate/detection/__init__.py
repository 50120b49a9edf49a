"""Actions of persons in boxes: the head, what it learns, and how it is judged."""
