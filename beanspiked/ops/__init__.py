"""What operators call to look at a cluster and to keep it in order."""
