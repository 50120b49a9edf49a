"""ConvNeXt V2 for maekit: a masked convolutional encoder and its decoder (FCMAE)."""
