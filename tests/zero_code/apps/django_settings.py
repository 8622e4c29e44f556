"""The settings of the shop in Django."""

from pathlib import Path

SECRET_KEY = "only a test"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "django_shop"
WSGI_APPLICATION = "django_shop.application"
INSTALLED_APPS = ["django.contrib.staticfiles"]
MIDDLEWARE = ["django_shop.who"]
STATIC_URL = "/static/"
STATICFILES_DIRS = [Path(__file__).parent / "static"]
USE_TZ = True
