"""Parcels on their way to an acknowledgement; knows nothing of whom they are sent to."""
