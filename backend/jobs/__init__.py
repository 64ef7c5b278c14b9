"""Work that somebody waits for: who runs when, and what came of it."""
