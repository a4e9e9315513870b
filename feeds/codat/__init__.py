"""The only door to Codat. It knows nothing of this product: no model, no setting; everything is passed in."""

from .client import CodatClient
from .errors import CodatError
from .limiter import Limiter, make_limiter

__all__ = ["CodatClient", "CodatError", "Limiter", "make_limiter"]
