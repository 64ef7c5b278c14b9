"""The manager of labels and track numbers: what annotations show, changes to them that can be taken back."""
