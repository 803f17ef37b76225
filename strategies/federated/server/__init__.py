"""What all strategies share on the server: it hears answers, turns some away, trains and tests its own network."""
