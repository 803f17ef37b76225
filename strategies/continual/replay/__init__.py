"""How the past comes back into training: plugins, losses, and what holds weights where they were."""
