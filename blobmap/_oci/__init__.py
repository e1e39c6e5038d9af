"""What an image layout and its layers are made of. Nothing here is public."""
