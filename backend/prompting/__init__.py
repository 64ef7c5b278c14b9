"""The prompting page of a task: the video's frames, masks of clicks at once, and tracks as they grow."""
