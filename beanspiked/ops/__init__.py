"""Commands with which operators check a cluster and keep it in order."""
