"""A drop-in beanstalkd whose jobs live in a store that can outgrow one machine, and the same tubes as a library.

    import beanspiked

    async with beanspiked.connect("aerospike://db1:3000/beanspike") as conn:      # or "sqlite:./jobs", or "memory:"
        tube = conn.use("testtube")
        await tube.put(b"hello", ttr=30)
        job = await tube.reserve(timeout=1)
        if job is not None:
            await job.delete()

`connect`, `dial` and `dial_default` make a Conn; `Conn.use` gives a Tube; `Tube.reserve` gives a Job; a Worker runs the usual loop.
`beanspiked.blocking` has the same for programs without an event loop. Failures raise a BeanspikeError; impossible arguments raise
ValueError or TypeError.

Importing this package loads nothing else until a name is used: the server has 100 ms from exec to listen.
"""

# `typing` has this too, but takes longer to import than all of this.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from beanspiked.library.conn import Conn, connect, dial, dial_default, serve
    from beanspiked.library.errors import (
        BeanspikeError,
        ConnClosed,
        ConnForked,
        DamagedEntry,
        DecodingError,
        EngineError,
        JobLost,
        JobNotFound,
        NotKickable,
        OutcomeUnknown,
        StoreFailed,
        StoreFull,
        StoreUnusable,
    )
    from beanspiked.library.job import Job
    from beanspiked.library.job_info import JobInfo, Seconds
    from beanspiked.library.metrics import Metrics
    from beanspiked.library.retry import Retry
    from beanspiked.library.serving import Serving
    from beanspiked.library.tube import Tube
    from beanspiked.library.tube_base import TubeStats
    from beanspiked.library.worker import Worker
    from beanspiked.version import __version__

__all__ = [
    "BeanspikeError",
    "Conn",
    "ConnClosed",
    "ConnForked",
    "DamagedEntry",
    "DecodingError",
    "EngineError",
    "Job",
    "JobInfo",
    "JobLost",
    "JobNotFound",
    "Metrics",
    "NotKickable",
    "OutcomeUnknown",
    "Retry",
    "Seconds",
    "Serving",
    "StoreFailed",
    "StoreFull",
    "StoreUnusable",
    "Tube",
    "TubeStats",
    "Worker",
    "__version__",
    "connect",
    "dial",
    "dial_default",
    "serve",
]

_HOMES = {
    "library.conn": ("Conn", "connect", "dial", "dial_default", "serve"),
    "library.errors": (
        "BeanspikeError",
        "ConnClosed",
        "ConnForked",
        "DamagedEntry",
        "DecodingError",
        "EngineError",
        "JobLost",
        "JobNotFound",
        "NotKickable",
        "OutcomeUnknown",
        "StoreFailed",
        "StoreFull",
        "StoreUnusable",
    ),
    "library.job": ("Job",),
    "library.job_info": ("JobInfo", "Seconds"),
    "library.metrics": ("Metrics",),
    "library.retry": ("Retry",),
    "library.serving": ("Serving",),
    "library.tube": ("Tube",),
    "library.tube_base": ("TubeStats",),
    "library.worker": ("Worker",),
    "version": ("__version__",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
