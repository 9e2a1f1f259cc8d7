/* Hears all sockets of a server in one call, and sends directly. `sockets.py` describes the interface.
 *
 * Python's own functions find the same events in the same order. For each socket with bytes they take a call, two changes of the
 * interpreter's lock and a buffer of 16 KB. Here the lock is released once for all sockets, and one buffer serves all.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* How many events one call finds at most, how many bytes it receives from one socket, and from all. */
enum { EVENTS = 1024, AT_ONCE = 16384, ROOM = 32 * AT_ONCE };

typedef struct {
    PyObject_HEAD
    int epoll;
    int waiting;            /* whether a thread waits in it without the interpreter's lock */
    char *early;            /* by descriptor: whether it is a stream that is received from at once */
    long early_size;
    char *room;             /* what was received, one after the other */
    int lengths[EVENTS];    /* how much of it each event has; 0 if nothing was received */
    struct epoll_event events[EVENTS];
} Ears;

static int enter(Ears *self) {
    if (self->waiting) PyErr_SetString(PyExc_RuntimeError, "another thread waits for these sockets");
    return self->waiting ? -1 : 0;
}

static PyObject *ears_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"epoll", NULL};
    int epoll;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i", names, &epoll)) return NULL;
    Ears *self = (Ears *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->epoll = epoll;
    self->room = PyMem_RawMalloc(ROOM);
    if (self->room != NULL) return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_NoMemory();
}

static void ears_dealloc(Ears *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_RawFree(self->early);
    PyMem_RawFree(self->room);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *ears_set_early(Ears *self, PyObject *args) {
    int fd, early;
    if (!PyArg_ParseTuple(args, "ip", &fd, &early) || enter(self)) return NULL;
    if (fd < 0) return PyErr_Format(PyExc_ValueError, "no descriptor: %d", fd);
    if (fd >= self->early_size) {
        long size = 2L * fd + 64;
        char *grown = PyMem_RawRealloc(self->early, (size_t)size);
        if (grown == NULL) return PyErr_NoMemory();
        memset(grown + self->early_size, 0, (size_t)(size - self->early_size));
        self->early = grown;
        self->early_size = size;
    }
    self->early[fd] = (char)early;
    Py_RETURN_NONE;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Wait awake, and let others have the processor who need it; then sleep; return how many events there are, or -1. */
static int find(Ears *self, double awake, int milliseconds, int most) {
    double until = awake > 0.0 ? now() + awake : 0.0;
    int found = 0;
    while (until > 0.0 && found == 0 && now() < until) {
        found = epoll_wait(self->epoll, self->events, most, 0);
        if (found == 0) sched_yield();
    }
    return found ? found : epoll_wait(self->epoll, self->events, most, milliseconds);
}

/* Wait, and receive; return how many events there are, or -1. */
static int hear(Ears *self, double awake, int milliseconds, int most) {
    int found = find(self, awake, milliseconds, most), used = 0;
    for (int i = 0; i < found; i++) {
        struct epoll_event *event = &self->events[i];
        int fd = event->data.fd;
        self->lengths[i] = 0;
        /* Python handles everything else at a socket, even its end. */
        if (event->events != EPOLLIN || fd >= self->early_size || !self->early[fd] || used > ROOM - AT_ONCE) continue;
        ssize_t received = recv(fd, self->room + used, AT_ONCE, MSG_DONTWAIT);
        if (received > 0) used += self->lengths[i] = (int)received;
    }
    return found;
}

/* Make the tuple of one event; Py_BuildValue would take longer than all the rest. */
static PyObject *told(const struct epoll_event *event, const char *data, int length) {
    PyObject *parts[] = {
        PyLong_FromLong(event->data.fd),
        PyLong_FromUnsignedLong(event->events),
        length ? PyBytes_FromStringAndSize(data, length) : Py_NewRef(Py_None),
    };
    PyObject *tuple = parts[0] && parts[1] && parts[2] ? PyTuple_New(3) : NULL;
    for (int i = 0; i < 3; i++) {
        if (tuple != NULL) PyTuple_SET_ITEM(tuple, i, parts[i]);
        else Py_XDECREF(parts[i]);
    }
    return tuple;
}

static PyObject *ears_wait(Ears *self, PyObject *args) {
    double seconds, awake;
    int most;
    if (!PyArg_ParseTuple(args, "did", &seconds, &most, &awake) || enter(self)) return NULL;
    if (most < 1 || most > EVENTS) return PyErr_Format(PyExc_ValueError, "not 1 to %d events: %d", EVENTS, most);
    double exact = seconds * 1000.0;
    /* Rounded up: a thread that wakes too early would find nothing to do. */
    int milliseconds = seconds < 0.0 ? -1 : exact < INT_MAX - 1 ? (int)exact + (exact > (int)exact) : INT_MAX;
    int found, error;
    self->waiting = 1;
    Py_BEGIN_ALLOW_THREADS
    found = hear(self, awake, milliseconds, most);
    error = errno;
    Py_END_ALLOW_THREADS
    self->waiting = 0;
    if (found < 0) {
        errno = error;
        if (error != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
        /* A signal has come: its handler may have work for the caller. */
        if (PyErr_CheckSignals() < 0) return NULL;
        found = 0;
    }
    PyObject *list = PyList_New(found);
    const char *next = self->room;
    for (int i = 0; list != NULL && i < found; i++) {
        struct epoll_event *event = &self->events[i];
        PyObject *item = told(event, next, self->lengths[i]);
        next += self->lengths[i];
        if (item == NULL) Py_CLEAR(list);
        else PyList_SET_ITEM(list, i, item);
    }
    /* The received bytes are lost for lack of memory: no connection may go on after the gap. */
    for (int i = 0; list == NULL && i < found; i++)
        if (self->lengths[i]) shutdown(self->events[i].data.fd, SHUT_RDWR);
    return list;
}

static PyMethodDef ears_methods[] = {
    {"set_early", (PyCFunction)ears_set_early, METH_VARARGS, "Say whether a descriptor is a stream that is received from at once."},
    {"wait", (PyCFunction)ears_wait, METH_VARARGS, "Wait for so many seconds, -1 for ever, for so many events, the first seconds awake; return (descriptor, event, bytes or None)."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ears_slots[] = {
    {Py_tp_doc, "Hears the sockets of an epoll set, and receives from those that are streams."},
    {Py_tp_new, ears_new},
    {Py_tp_dealloc, ears_dealloc},
    {Py_tp_methods, ears_methods},
    {0, NULL},
};

static PyType_Spec ears_spec = {
    .name = "beanspiked.server._epoll.Ears",
    .basicsize = sizeof(Ears),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ears_slots,
};

/* As `socket.send`, but the interpreter's lock is kept: the kernel copies some bytes, and never waits. */
static PyObject *send_bytes(PyObject *descriptor, PyObject *data) {
    int fd = (int)PyLong_AsLong(descriptor);
    ssize_t sent;
    if (PyBytes_CheckExact(data)) {
        sent = send(fd, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
        sent = send(fd, view.buf, (size_t)view.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        PyBuffer_Release(&view);
    }
    return sent < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromSsize_t(sent);
}

static PyMethodDef send_method = {"send", send_bytes, METH_O, "Send bytes without waiting; return how many were taken."};

static PyObject *sender(PyObject *module, PyObject *descriptor) {
    (void)module;
    if (PyLong_AsLong(descriptor) == -1 && PyErr_Occurred()) return NULL;
    return PyCFunction_New(&send_method, descriptor);
}

static int execute(PyObject *module) {
    PyObject *type = PyType_FromSpec(&ears_spec);
    int done = type == NULL ? -1 : PyModule_AddObjectRef(module, "Ears", type);
    Py_XDECREF(type);
    return done;
}

static PyMethodDef methods[] = {
    {"sender", sender, METH_O, "Return what sends bytes to a descriptor."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "beanspiked.server._epoll",
    .m_doc = "Sockets of a server, heard and sent to without Python's detours.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__epoll(void) { return PyModuleDef_Init(&definition); }
