"""Motion for maekit: a masker that hides what moves, and a target of frame differences."""
