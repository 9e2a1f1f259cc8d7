"""The store on an Aerospike cluster."""
