"""The `sbrpc` command, for an interpreter in which only its source is on the path."""

from __future__ import annotations

from sbrpc.__main__ import main

if __name__ == "__main__":
    main()
