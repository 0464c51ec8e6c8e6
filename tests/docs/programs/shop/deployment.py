"""The processes of the shop, as they are deployed."""

from __future__ import annotations

from .api import app as api
from .service import app as service

__all__ = ["api", "service"]
