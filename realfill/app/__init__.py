"""The entry points: the command line and the demo. They may use the whole library, and nothing imports them."""
