/* Makes writes and syncs of the process fail with the error number in the file that SCONIFY_FAULT names, while there is one.
 * A negative number makes each sync take that many milliseconds instead. With "lose" the disk takes nothing of what is written
 * to the database: the next sync says so, once, and what was there before comes back, as when the kernel, which takes pages that
 * it could not write for written ones, has dropped them from memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct lost {
    struct lost *next;
    off64_t offset;
    size_t count;
    char before[];
} *lost;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static int is_database(int file)
{
    char link[32], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 7 && !strcmp(path + length - 7, ".sqlite");
}

static int loses(void)
{
    char text[5] = {0};
    int file = syscall(SYS_openat, AT_FDCWD, getenv("SCONIFY_FAULT"), O_RDONLY);
    if (file < 0)
        return 0;
    ssize_t length = syscall(SYS_read, file, text, 4);
    syscall(SYS_close, file);
    return length == 4 && !strcmp(text, "lose");
}

/* Notes that a part of the database is about to be written: it will be lost, or is no longer. */
static void note(int file, size_t count, off64_t offset)
{
    if (!is_database(file))
        return;
    pthread_mutex_lock(&turn);
    struct lost **link = &lost, *old = NULL;
    while (*link && (*link)->offset != offset)
        link = &(*link)->next;
    if ((old = *link) && !loses()) {
        *link = old->next;
        free(old);
    } else if (!old && loses()) {
        struct lost *new = calloc(1, sizeof *new + count);
        *new = (struct lost){.next = lost, .offset = offset, .count = count};
        if (syscall(SYS_pread64, file, new->before, count, offset) < 0)
            abort();
        lost = new;
    }
    pthread_mutex_unlock(&turn);
}

/* Whether something was lost, which is undone then. */
static int undo(int file)
{
    int found = 0;
    if (!is_database(file))
        return 0;
    pthread_mutex_lock(&turn);
    while (lost) {
        struct lost *next = lost->next;
        if (syscall(SYS_pwrite64, file, lost->before, lost->count, lost->offset) < 0)
            abort();
        free(lost);
        lost = next;
        found = 1;
    }
    pthread_mutex_unlock(&turn);
    if (found)
        errno = EIO;
    return found;
}

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
    if (fault(0))
        return -1;
    note(file, count, offset);
    return syscall(SYS_pwrite64, file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(file, bytes, count, offset);
}

int fdatasync(int file)
{
    return fault(1) || undo(file) ? -1 : syscall(SYS_fdatasync, file);
}

int fsync(int file)
{
    return fault(1) || undo(file) ? -1 : syscall(SYS_fsync, file);
}
