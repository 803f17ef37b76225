"""What runs on a node: the ClientApp, and one function for each kind of request."""
