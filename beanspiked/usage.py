"""The help text of the server's options."""

__all__ = ["USAGE"]

USAGE = """\
Server options; BEANSPIKED_<LONG_NAME> in the environment sets the same:
 -l, --listen ADDR        listen on this address, or all addresses of this name (default 0.0.0.0); may be repeated
 -l unix:PATH             listen on a unix socket
     --socket-mode MODE   permissions of unix sockets, in octal
 -p, --port PORT          listen on this TCP port, a number or a service's name (default 11300)
     --tcp-keepalive S    probe a client that has been silent for S seconds (default 60; 0: the kernel's setting)
 -b, --journal DIR        keep jobs in a journal in this directory
 -f, --fsync-ms MS        sync the journal at least every MS milliseconds (default 0: before each reply)
 -F, --no-fsync           never sync the journal; a crash of the machine may lose jobs
 -z, --max-job-size BYTES accept jobs of up to this size (default 65535, at most 1073741824)
 -s BYTES                 shown in stats and otherwise ignored: the journal has no files of a fixed size
 -u, --user USER          become this user once the socket listens
     --store URL          memory: (the default), sqlite:DIR (the same as -b DIR), or a cluster that servers share:
                          aerospike://[USER:PASS@]HOST[:PORT][,HOST...]/NAMESPACE[?prefix=NAME&tls=NAME]
                          Without -b and --store, AEROSPIKE_HOST, _PORT and _NAMESPACE (beanspike) choose a cluster.
     --workers N          serve a cluster's jobs with N processes, each a front-end; one that dies is replaced
     --stats-of all|worker
                          count in stats what all workers did (the default), or the one that is asked
     --io auto|native|python
                          read sockets with a C function or with Python's; auto, the default: in C where that is installed
     --lenient-eol        also accept a bare LF as the end of a line
     --drain-timeout S    before a stop, give clients up to S seconds to finish the jobs they hold (default 0)
 -c, -n                   ignored, as in beanstalkd
 -V                       log connections; -VV logs commands and replies as well
 -v, --version            print the version and exit
 -h, --help               print this and exit
Signals: USR1 refuses further puts. TERM and INT make held jobs ready and stop the server.
"""
