"""Every address of the product."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from feeds.api.connect_sessions import api
from feeds.views import connect, machines

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", machines.healthz, name="healthz"),
    path("readyz", machines.readyz, name="readyz"),
    path("metrics", machines.metrics, name="metrics"),
    path("webhooks/codat", machines.codat_webhook, name="codat-webhook"),
    # Before the admin's own: its sign-in and sign-out are these.
    path("admin/", include("feeds.sign_in.urls")),
    path("language", machines.choose_language, name="language"),
    path("connect/<str:key>/opened", connect.opened, name="connect-opened"),
    # Whatever else is there: who copied a link badly is a customer, and no page of staff's is for them.
    re_path(r"^connect/(?P<key>.*)$", connect.connect, name="connect"),
    path("api/v1/", api.urls),
    path("admin/", admin.site.urls),
]

handler500 = "feeds.views.errors.fault"
