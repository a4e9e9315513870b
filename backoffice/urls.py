"""Every address of the product."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from feeds import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics, name="metrics"),
    path("webhooks/codat", views.codat_webhook, name="codat-webhook"),
    # Before the admin's own: its sign-in and sign-out are these.
    path("admin/", include("feeds.sign_in.urls")),
    path("language", views.choose_language, name="language"),
    path("admin/", admin.site.urls),
]
