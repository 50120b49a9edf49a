"""Latent targets for maekit: data2vec and I-JEPA, taught by the encoder's moving average."""
