"""The commands of `sam3-backend`, one module each: `add_parser` defines its arguments, `run` does its work."""
