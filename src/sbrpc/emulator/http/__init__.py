"""The emulator's HTTP side: management API, health, a page for people, and everything else as JSON."""
