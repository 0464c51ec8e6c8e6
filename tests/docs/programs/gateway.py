"""The web application, by another name."""

from __future__ import annotations

from shop.api import app

__all__ = ["app"]
