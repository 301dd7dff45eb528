"""The sparse VAE and what it makes: sparse codes, verified archives, models on disk."""
