"""What each command of `sam3-backend` does; the words that it takes are in `cli`."""
