"""The pages' files; `backend.pages` serves them."""
