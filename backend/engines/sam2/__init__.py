"""SAM 2: follows clicks, boxes and masks; its weights are open and run on a laptop."""
