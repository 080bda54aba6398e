/* A library to preload: the n-th call of one kind fails, once, for files below $FAULT_FOLDER.
   A short write takes half of the bytes and reports no error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int armed_kind, armed_error, armed_at, calls; /* kinds: 1 write, 2 sync, 3 rename, 4 read */

void fault_arm(int kind, int at, int error) { armed_kind = kind, armed_at = at, armed_error = error, calls = 0; }
int fault_calls(void) { return calls; }

static int inside(const char *path) {
    const char *folder = getenv("FAULT_FOLDER");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int due(int kind, int descriptor, const char *path) {
    char link[64], name[PATH_MAX];
    if (kind != armed_kind) return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(link, name, sizeof name - 1);
        if (length < 0) return 0;
        name[length] = 0, path = name;
    }
    return inside(path) && ++calls == armed_at;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL return errno = armed_error, -1

ssize_t write(int fd, const void *bytes, size_t count) {
    if (due(1, fd, NULL)) {
        if (armed_error) FAIL;
        count = (count + 1) / 2;
    }
    return REAL(write)(fd, bytes, count);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    if (due(1, fd, NULL)) {
        if (armed_error) FAIL;
        count = (count + 1) / 2;
    }
    return REAL(pwrite64)(fd, bytes, count, offset);
}
int fsync(int fd) { if (due(2, fd, NULL)) FAIL; return REAL(fsync)(fd); }
int fdatasync(int fd) { if (due(2, fd, NULL)) FAIL; return REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { if (due(3, -1, to)) FAIL; return REAL(rename)(from, to); }
ssize_t read(int fd, void *bytes, size_t count) { if (due(4, fd, NULL)) FAIL; return REAL(read)(fd, bytes, count); }
ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    if (due(4, fd, NULL)) FAIL;
    return REAL(pread64)(fd, bytes, count, offset);
}
