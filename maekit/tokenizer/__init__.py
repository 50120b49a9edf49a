"""Training of the discrete VAE whose codes ``dvae-token`` predicts."""
