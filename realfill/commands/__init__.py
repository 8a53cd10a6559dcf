"""The commands of the command line, one class each: its fields are its options."""
