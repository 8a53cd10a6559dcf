"""Photos from files and back: values, depth, profiles, metadata, layers."""
