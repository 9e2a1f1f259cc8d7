"""The Aerospike engine: tubes shared by any number of front-ends, in segments of a cluster."""
