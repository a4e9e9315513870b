"""Timings, run by hand: `python -m tests.bench`. Never part of the tests: a busy machine is not a defect."""
