/* Makes writes and syncs of the process fail with the error number in the file that SCONIFY_FAULT names, while there is one.
 * A negative number makes each sync take that many milliseconds instead. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fault(int syncs)
{
    const char *path = getenv("SCONIFY_FAULT");
    char text[16] = {0};
    int file;
    if (!path || (file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY)) < 0)
        return 0;
    if (syscall(SYS_read, file, text, sizeof text - 1) < 0)
        text[0] = 0;
    syscall(SYS_close, file);
    if (atoi(text) < 0) {
        if (syncs)
            usleep(-atoi(text) * 1000);
        return 0;
    }
    errno = atoi(text);
    return errno;
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset)
{
    return fault(0) ? -1 : syscall(SYS_pwrite64, file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(file, bytes, count, offset);
}

int fdatasync(int file)
{
    return fault(1) ? -1 : syscall(SYS_fdatasync, file);
}

int fsync(int file)
{
    return fault(1) ? -1 : syscall(SYS_fsync, file);
}
