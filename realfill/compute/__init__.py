"""The machine: devices, precision, memory and progress. Knows nothing of images or models."""
