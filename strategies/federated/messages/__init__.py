"""What travels: requests, answers, and how arrays become bytes."""
