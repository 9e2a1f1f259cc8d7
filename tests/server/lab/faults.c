/* A disk that is out of a quota, or broken.
 *
 * For LD_PRELOAD. With FAULTS_QUOTA set, a full disk is told of as an exceeded quota. While there is a file `sync` in
 * FAULTS_IN, fsync and fdatasync fail with EIO; while there is a file `write`, so does pwrite. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int
broken(const char *what)
{
    char path[PATH_MAX];
    const char *in = getenv("FAULTS_IN");
    int before = errno;
    if (!in)
        return 0;
    snprintf(path, sizeof path, "%s/%s", in, what);
    int found = !access(path, F_OK);
    errno = found ? EIO : before;
    return found;
}

static int
told(int number)
{
    return number == ENOSPC && getenv("FAULTS_QUOTA") ? EDQUOT : number;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TELL(result) do { __typeof__(result) r = (result); if (r < 0) errno = told(errno); return r; } while (0)

int fsync(int fd) { if (broken("sync")) return -1; TELL(NEXT(fsync)(fd)); }
int fdatasync(int fd) { if (broken("sync")) return -1; TELL(NEXT(fdatasync)(fd)); }
ssize_t write(int fd, const void *data, size_t size) { TELL(NEXT(write)(fd, data, size)); }

ssize_t
pwrite(int fd, const void *data, size_t size, off_t at)
{
    if (broken("write"))
        return -1;
    TELL(NEXT(pwrite)(fd, data, size, at));
}

ssize_t
pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    if (broken("write"))
        return -1;
    TELL(NEXT(pwrite64)(fd, data, size, at));
}

int ftruncate(int fd, off_t size) { TELL(NEXT(ftruncate)(fd, size)); }
int ftruncate64(int fd, off64_t size) { TELL(NEXT(ftruncate64)(fd, size)); }

int posix_fallocate(int fd, off_t at, off_t size) { return told(NEXT(posix_fallocate)(fd, at, size)); }
int posix_fallocate64(int fd, off64_t at, off64_t size) { return told(NEXT(posix_fallocate64)(fd, at, size)); }
