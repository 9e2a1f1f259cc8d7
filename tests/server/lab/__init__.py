"""What the tests of the running server share: processes, clients, a model of its journal and views of its system calls."""
