"""The API for the bank's own application, over HTTP."""
