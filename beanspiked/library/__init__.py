"""The library: tubes and jobs for programs, on the same engines as the server."""
