"""The service, by another name."""

from __future__ import annotations

from shop.service import app

__all__ = ["app"]
