"""Networks that fill a hole in one pass: the completion network, LaMa, MI-GAN. Sees tensors, never windows."""
