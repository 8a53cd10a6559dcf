"""Photo files: decoding and encoding with their depth, colour profile, metadata and layers. Nothing about scenes."""
