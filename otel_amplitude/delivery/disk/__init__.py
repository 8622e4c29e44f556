"""Accepted events on disk: the segment format, who owns a directory, reading and removing segments, looking from outside."""
