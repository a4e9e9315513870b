"""Public pages: `machines` for probes and webhooks, `connect` for the bank's customers."""
