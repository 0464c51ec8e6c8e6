"""Peers that know nothing of sbrpc but docs/wire-contract.md."""
