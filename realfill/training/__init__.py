"""Training: data sets, crops, objective, latent cache, loop and checkpoints; fitting a scene and pre-training a base.

It neither matches references nor fills holes: the pipeline passes in matches and windows.
"""
