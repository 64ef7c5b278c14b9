"""`make demo`: Label Studio and the backend on this machine, with a sample clip. Not part of the package."""
