"""The Flower app, and Flower's own engines on this computer."""
