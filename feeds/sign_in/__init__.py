"""How staff get in: the only importer of django-allauth and, with `models` and `services`, of django-axes.

`accounts` who may, `second_factors`, `identity_provider` (OpenID Connect), `lockout`, `sessions` for how long, `events`
what the history keeps of it. The pages are allauth's views under addresses of ours (`urls`), in our templates.
"""
