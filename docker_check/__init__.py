"""`make docker-check`: the images, built and started in every documented way. Not part of the package."""
