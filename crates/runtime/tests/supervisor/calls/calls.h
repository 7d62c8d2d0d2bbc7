/* What the parts of the program share. */
#ifndef CALLS_H
#define CALLS_H
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>


/* The directory in which everything happens, and one of another file system. */
extern char *top, *other;

/* A call: whether it succeeds, and else why not. */
#define T(call) (errno = 0, result(__LINE__, #call, (long)(call)))
/* A call whose value counts too. */
#define V(call)                                                                                     \
    do {                                                                                            \
        errno = 0;                                                                                  \
        long value_ = (long)(call);                                                                 \
        printf("%d %s: %ld %s\n", __LINE__, #call, value_, value_ < 0 ? strerrorname_np(errno) : ""); \
    } while (0)
#define S(text) printf("%d %s: %s\n", __LINE__, #text, text)

#define SHOW(path) show(__LINE__, path)

void result(int line, const char *what, long value);
int make(const char *path, const char *content);
const char *content(const char *path);
void show(int line, const char *path);
int agree(const char *path, int fd);
int same(const char *one, const char *two);

void opening(void);
void naming(void);
void timing(void);
void lengths(void);
void owning(void);
void listing(void);
void moving(void);
void attributes(void);
void sharing(void);
void special(void);
void holding(void);
void restricting(void);
void looking(void);
void executing(void);
int waiting(void);
void watching(void);
void random_calls(unsigned seed, int rounds);

#endif
