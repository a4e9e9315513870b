"""The product's settings for the suite. Whatever a developer's `.env` says, no test ever speaks to real Codat."""

import os

os.environ["ENVIRONMENT"] = "test"
os.environ["CODAT_SANDBOX"] = "true"
os.environ["CODAT_BASE_URL"] = "http://localhost:9"  # the discard port: a test that forgot the stand-in is refused
os.environ["CODAT_API_KEY"] = "no-such-key"
# No test is about a PostgreSQL that loses power, and waiting for its disk at each commit took minutes.
os.environ.setdefault("PGOPTIONS", "-c synchronous_commit=off")
# Most tests are not about whose customer it is. Those that are set it to what production has: off.
os.environ["RM_SEES_ALL_CUSTOMERS"] = "true"

from backoffice.settings import *  # noqa: E402, F403

# Tests of an action do it alone; what a second person changes has tests of its own, which switch it on.
PRODUCT_FOUR_EYES = FOUR_EYES  # noqa: F405
FOUR_EYES: list[str] = []

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Emptied before each test, which the table of the database is not.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
