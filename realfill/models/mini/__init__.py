"""The packaged base: a small inpainting model that runs the whole job offline on a CPU."""
