"""WSGI entry point. Bad settings refuse to start here too: a web server runs no system checks of its own."""

import os

from django.core.management.base import BaseCommand
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "backoffice.settings")
application = get_wsgi_application()
BaseCommand().check()
