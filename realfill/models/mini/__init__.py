"""The packaged base model: a small inpainting model that runs the whole pipeline offline on a CPU."""
