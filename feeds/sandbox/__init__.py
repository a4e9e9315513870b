"""The stand-in Codat: a separate program (``python -m feeds.sandbox``) that speaks only HTTP.

It serves the operations of Codat's Bank Feeds API that the product uses, Codat's hosted Link page, the Portal's
callout form and control endpoints under ``/_sandbox/``. It imports nothing of the product, and the product imports
nothing of it.
"""
