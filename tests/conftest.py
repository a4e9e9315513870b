"""Fixtures every test may use."""

from tests.sandbox_process import sandbox, sandbox_server

__all__ = ["sandbox", "sandbox_server"]
