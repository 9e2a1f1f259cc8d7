"""The beanstalkd protocol without I/O: it turns bytes into commands and values into replies. Imports no other package of ours."""
