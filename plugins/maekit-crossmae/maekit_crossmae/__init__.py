"""CrossMAE for maekit: a decoder of cross-attention alone, weighted layers, partial prediction."""
