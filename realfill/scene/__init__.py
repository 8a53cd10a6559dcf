"""The inputs of a job: reading and checking photos and masks, outpainting, windows around the hole. No models."""
