"""The experiments behind the claims, one file a group."""
