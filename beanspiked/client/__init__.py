"""A client of any beanstalkd-compatible server.

    from beanspiked.client import requests
    from beanspiked.client.address import Address
    from beanspiked.client.blocking import Conn

    with Conn.connect(Address.parse("127.0.0.1:11300")) as conn:
        conn.ask(requests.use("emails"))
        job_id = conn.ask(requests.put(b"hello", ttr=60))

`requests` has a function for each command of the protocol; the request that it makes knows its bytes, its possible replies and their
meaning. `core` turns bytes into replies without a socket, and two shells move the bytes: `blocking.Conn` and, for asyncio, `conn.Conn`.
Both have `ask`, which sends one request, and `ask_all`, which sends many at once. `errors` lists the errors.
"""
