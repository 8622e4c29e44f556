"""Observers that tell logs and metrics what delivery did."""
