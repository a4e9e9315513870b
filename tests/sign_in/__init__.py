"""Signing in, as a browser without a person sees it; tests/browser has the person."""
