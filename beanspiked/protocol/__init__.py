"""The beanstalkd protocol, sans I/O: bytes to commands, values to reply bytes. Imports nothing else of ours."""
