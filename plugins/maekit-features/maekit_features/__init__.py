"""Features as targets for maekit: a frozen teacher of any kind, and HOG as in MaskFeat."""
