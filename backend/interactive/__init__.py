"""Interactive sessions: a task's video, frames encoded ahead, previews of prompts, and tracks that begin there."""
