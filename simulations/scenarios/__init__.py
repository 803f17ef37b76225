"""What a run is: distil and judge, a federated run, a life in a stream, and what they are measured against."""
