"""Amplitude's HTTP contract: parcels to a request, an answer to a receipt."""
