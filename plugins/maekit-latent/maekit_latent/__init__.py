"""Latent targets for maekit: data2vec and I-JEPA, whose teacher is the encoder's own moving average."""
