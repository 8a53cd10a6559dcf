"""Latent diffusion models: files, LoRA, noise schedules, sampling in tiles. Knows no scenes and trains nothing."""
