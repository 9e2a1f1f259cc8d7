/* Keeps beside a journal what is certainly on disk: whatever was written when its file was last synced.
 *
 * For LD_PRELOAD. Files in SYNCED_OF are copied to SYNCED_TO by each fsync and fdatasync, before it returns. A file
 * that is removed is removed there, too: file systems that journal their directories keep that in order. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The copy's path, or 0 if the file is not in the directory. */
static int
counterpart(const char *path, const char *suffix, char *copy)
{
    const char *of = getenv("SYNCED_OF"), *to = getenv("SYNCED_TO");
    const char *slash = strrchr(path, '/');
    if (!of || !to || !slash || strlen(of) != (size_t)(slash - path) || strncmp(path, of, slash - path))
        return 0;
    snprintf(copy, PATH_MAX, "%s%s%s", to, slash, suffix);
    return 1;
}

static void
keep(int fd)
{
    char link[64], path[PATH_MAX], draft[PATH_MAX], copy[PATH_MAX], data[65536];
    struct stat is;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0 || fstat(fd, &is) || !S_ISREG(is.st_mode))
        return;
    path[size] = 0;
    if (!counterpart(path, ".draft", draft) || !counterpart(path, "", copy))
        return;
    int out = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    /* Reads by the same descriptor: to close another one would drop the process's locks on the file. */
    off_t at = 0;
    while ((size = pread(fd, data, sizeof data, at)) > 0) {
        if (write(out, data, size) != size)
            abort();
        at += size;
    }
    close(out);
    rename(draft, copy);
}

int
fsync(int fd)
{
    int failed = ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
    if (!failed)
        keep(fd);
    return failed;
}

int
fdatasync(int fd)
{
    int failed = ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
    if (!failed)
        keep(fd);
    return failed;
}

int
unlink(const char *path)
{
    char copy[PATH_MAX];
    int failed = ((int (*)(const char *))dlsym(RTLD_NEXT, "unlink"))(path);
    if (!failed && counterpart(path, "", copy))
        ((int (*)(const char *))dlsym(RTLD_NEXT, "unlink"))(copy);
    return failed;
}
