"""How the shapes checkpoint is trained; nothing of it is needed to use it."""
