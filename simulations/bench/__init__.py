"""The library beside the published loops: seconds, processor rate and memory of the same work, in one run."""
