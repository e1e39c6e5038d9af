"""How the bytes live. Nothing here is public, and nothing outside blobkv imports it."""
