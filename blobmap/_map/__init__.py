"""How the map keeps its promises: one operation a module. Nothing here is public."""
