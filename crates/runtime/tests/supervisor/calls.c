/* Makes every call about files in a directory and prints what came out: the same lines natively and in each writable region, or the region differs.
 *
 * calls DIRECTORY OTHER [SEED [ROUNDS]]: the directory must be empty or missing; OTHER is a directory of another file system. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

static char *top, *other;

static void result(int line, const char *what, long value)
{
    printf("%d %s: %s\n", line, what, value < 0 ? strerrorname_np(errno) : "ok");
}

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

static int make(const char *path, const char *content)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0)
        return -1;
    long count = write(fd, content, strlen(content));
    close(fd);
    return count < 0 ? -1 : 0;
}

static const char *content(const char *path)
{
    static char text[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return strerrorname_np(errno);
    long count = read(fd, text, sizeof text - 1);
    close(fd);
    text[count < 0 ? 0 : count] = 0;
    return text;
}

/* What stat shows, without what depends on the file system. */
static void show(int line, const char *path)
{
    struct stat s;
    if (lstat(path, &s)) {
        printf("%d %s %s\n", line, path, strerrorname_np(errno));
        return;
    }
    printf("%d %s mode %o uid %u gid %u links %lu size %ld\n", line, path, s.st_mode, s.st_uid, s.st_gid,
           S_ISDIR(s.st_mode) ? 0 : (unsigned long)s.st_nlink, S_ISDIR(s.st_mode) ? 0 : (long)s.st_size);
}
#define SHOW(path) show(__LINE__, path)

/* All ways to look at an open file agree. */
static int agree(const char *path, int fd)
{
    struct stat a, b, c;
    struct statx x;
    if (stat(path, &a) || fstat(fd, &b) || fstatat(fd, "", &c, AT_EMPTY_PATH) || statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x))
        return -1;
    a.st_atim = b.st_atim, c.st_atim = b.st_atim;
    return memcmp(&a, &b, sizeof a) == 0 && memcmp(&b, &c, sizeof b) == 0 && x.stx_ino == a.st_ino && x.stx_nlink == a.st_nlink &&
           x.stx_mtime.tv_nsec == a.st_mtim.tv_nsec && x.stx_size == (uint64_t)a.st_size && x.stx_mode == a.st_mode;
}

static int same(const char *one, const char *two)
{
    struct stat a, b;
    if (lstat(one, &a) || lstat(two, &b))
        return -1;
    return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static void opening(void)
{
    int fd;
    V(open("new", O_RDONLY));
    T(fd = open("new", O_CREAT | O_EXCL | O_RDWR, 0640));
    V(agree("new", fd));
    SHOW("new");
    V(write(fd, "0123456789", 10));
    V(agree("new", fd));
    T(open("new", O_CREAT | O_EXCL | O_RDWR, 0640));
    T(open("new", O_CREAT | O_DIRECTORY | O_RDWR, 0640));
    T(open("new", O_DIRECTORY));
    T(open("new/", O_RDONLY));
    T(open("new/x", O_RDONLY));
    T(open("missing/x", O_CREAT | O_WRONLY, 0600));
    T(open("missing/", O_CREAT | O_WRONLY, 0600));
    T(open("", O_RDONLY));
    T(open(".", O_RDONLY));
    T(open(".", O_RDWR));
    T(open(".", O_CREAT | O_RDONLY, 0600));
    T(open("..", O_WRONLY));
    fd = open("new", O_WRONLY | O_APPEND);
    V(write(fd, "ab", 2));
    V(lseek(fd, 0, SEEK_CUR));
    V(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    V(pread(fd, &fd, 1, 0));
    close(fd);
    S(content("new"));
    fd = open("new", O_RDONLY);
    V(write(fd, "x", 1));
    V(ftruncate(fd, 1));
    V(fcntl(fd, F_GETFD));
    close(fd);
    fd = open("new", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    V(fcntl(fd, F_GETFD));
    V(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    close(fd);
    T(fd = open("new", O_WRONLY | O_TRUNC));
    V(lseek(fd, 0, SEEK_END));
    close(fd);
    T(creat("created", 0604));
    SHOW("created");
    T(symlink("dangling-target", "dangling"));
    T(open("dangling", O_RDONLY));
    T(open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0600));
    T(open("dangling", O_NOFOLLOW));
    T(open("dangling", O_CREAT | O_WRONLY, 0600));
    SHOW("dangling-target");
    SHOW("dangling");
    T(symlink("loop", "loop"));
    T(open("loop", O_RDONLY));
    T(open("loop/x", O_RDONLY));
    char name[300];
    memset(name, 'n', sizeof name), name[256] = 0;
    T(open(name, O_CREAT | O_WRONLY, 0600));
    T(mkdir(name, 0700));
    name[255] = 0;
    T(open(name, O_CREAT | O_WRONLY, 0600));
    T(unlink(name));
    T(open(NULL, O_RDONLY));

    struct open_how how = {.flags = O_CREAT | O_RDWR, .mode = 0600};
    T(syscall(SYS_openat2, AT_FDCWD, "how", &how, sizeof how));
    SHOW("how");
    how.mode = 0100000;
    T(syscall(SYS_openat2, AT_FDCWD, "how", &how, sizeof how));
    how.mode = 0600, how.flags = O_RDONLY;
    T(syscall(SYS_openat2, AT_FDCWD, "how", &how, sizeof how));
    how.mode = 0;
    T(syscall(SYS_openat2, AT_FDCWD, "how", &how, 8));
    T(syscall(SYS_openat2, AT_FDCWD, "how", &how, sizeof how));

    T(fd = open(".", O_TMPFILE | O_RDWR, 0600));
    if (fd < 0)
        return;
    V(write(fd, "nameless", 8));
    struct stat s;
    T(fstat(fd, &s));
    V(s.st_nlink);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    S(content("named"));
    SHOW("named");
    close(fd);
    T(fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    T(linkat(AT_FDCWD, path, AT_FDCWD, "named2", AT_SYMLINK_FOLLOW));
    T(open(".", O_TMPFILE | O_RDONLY, 0600));
    T(open("named", O_TMPFILE | O_RDWR, 0600));
    T(open("missing", O_TMPFILE | O_RDWR, 0600));
}

static void naming(void)
{
    T(mkdir("d", 0755));
    SHOW("d");
    T(mkdir("d", 0755));
    T(mkdir("d/", 0755));
    T(mkdir("d/e/", 0700));
    T(mkdir("missing/e", 0700));
    T(mkdir("new/e", 0700));
    T(mkdir(".", 0700));
    T(mkdir("d/..", 0700));
    T(rmdir("d"));
    T(rmdir("d/."));
    T(rmdir("d/.."));
    T(rmdir("d/e/"));
    T(rmdir("d/e"));
    T(unlink("d"));
    T(unlink("d/"));
    T(unlink("missing"));
    T(unlink("new/"));
    T(rmdir("new"));
    T(unlinkat(AT_FDCWD, "d", 1));
    T(make("d/f", "f"));
    T(link("d/f", "d/g"));
    V(same("d/f", "d/g"));
    SHOW("d/f");
    T(link("d/f", "d/g"));
    T(link("d", "d2"));
    T(link("missing", "d2"));
    T(link("d/f", "missing/g"));
    T(link("d/f", "d2/"));
    T(link("dangling", "d/soft"));
    V(same("dangling", "d/soft"));
    T(linkat(AT_FDCWD, "dangling", AT_FDCWD, "d/hard", AT_SYMLINK_FOLLOW));
    V(same("dangling-target", "d/hard"));
    T(linkat(AT_FDCWD, "d/f", AT_FDCWD, "d/x", 0x10000));
    T(unlink("d/f"));
    S(content("d/g"));
    SHOW("d/g");
    T(symlink("", "empty"));
    T(symlink("t", "d"));
    T(symlink("t", "d/s/"));
    T(symlink("g", "d/s"));
    SHOW("d/s");
    S(content("d/s"));
    char buffer[16] = "";
    V(readlink("d/s", buffer, sizeof buffer));
    V(readlink("loop", buffer, 2));
    V(readlink("d", buffer, sizeof buffer));
    V(readlink("missing", buffer, sizeof buffer));
    V(readlink("d/s", buffer, 0));
    T(symlink("d", "way"));
    S(content("way/g"));
    S(content("way/../d/g"));
    S(content("way/s"));
    T(open("way", O_NOFOLLOW | O_DIRECTORY));
    T(open("way/", O_NOFOLLOW | O_DIRECTORY));
    T(unlink("way/"));
    T(rmdir("way"));
    T(rmdir("way/"));
    T(rename("way/", "way2"));
    T(mkdir("way/", 0700));
    T(mkdir("way", 0700));
    T(mkdir("dangling", 0700));

    /* Renaming. */
    T(rename("d/g", "d/h"));
    T(rename("missing", "d/h"));
    T(rename("d/h", "missing/h"));
    T(make("one", "1"));
    T(make("two", "2"));
    T(rename("one", "two"));
    S(content("two"));
    SHOW("one");
    T(rename("two", "two"));
    T(link("two", "three"));
    T(rename("two", "three"));
    SHOW("two");
    T(unlink("two"));
    T(mkdir("dir1", 0755));
    T(mkdir("dir2", 0755));
    T(mkdir("dir2/sub", 0755));
    T(rename("dir1", "dir2"));
    T(rename("dir2", "dir1"));
    SHOW("dir1/sub");
    SHOW("dir2");
    T(rename("dir1", "dir1/sub/x"));
    T(rename("dir1/sub", "dir1"));
    T(rename("dir1", "three"));
    T(rename("three", "dir1"));
    T(rename("three", "three/"));
    T(rename("three/", "four"));
    T(rename("three", "four/"));
    T(rename("dir1/", "dir3/"));
    SHOW("dir3/sub");
    T(rename("dir3/.", "x"));
    T(rename("dir3", "."));
    T(rename("..", "x"));
    T(renameat2(AT_FDCWD, "three", AT_FDCWD, "dangling-target", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "three", AT_FDCWD, "3", RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "3", AT_FDCWD, "dir3", RENAME_EXCHANGE));
    SHOW("3");
    SHOW("dir3");
    T(renameat2(AT_FDCWD, "3", AT_FDCWD, "dir3", RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "3", AT_FDCWD, "missing", RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "3", AT_FDCWD, "dir3", RENAME_EXCHANGE | RENAME_NOREPLACE));
    T(renameat2(AT_FDCWD, "dir3", AT_FDCWD, "dir3/sub", RENAME_EXCHANGE));
    T(renameat2(AT_FDCWD, "3", AT_FDCWD, "4", 64));
    SHOW("dir3/sub");
    char far[4096];
    snprintf(far, sizeof far, "%s/x", other);
    T(rename("3", far));
    T(link("3", far));

    /* Unlinked while open. */
    T(mknod("node", S_IFREG | 0600, 0));
    SHOW("node");
    T(mknod("node", S_IFREG | 0600, 0));
    T(mknod("node2", S_IFDIR | 0600, 0));
    int fd = open("3", O_RDWR);
    struct stat s;
    T(unlink("3"));
    if (fd < 0)
        return;
    V(write(fd, "still", 5));
    T(fstat(fd, &s));
    V(s.st_nlink);
    V(s.st_size);
    char path[64], target[4096] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    V(readlink(path, target, sizeof target) > 0);
    S(strrchr(target, '/') ? strrchr(target, '/') : "none");
    S(content(path));
    T(linkat(AT_FDCWD, path, AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
    close(fd);
}

static long times[6];
static void mark(const char *path)
{
    struct stat s;
    lstat(path, &s);
    times[0] = s.st_mtim.tv_sec, times[1] = s.st_mtim.tv_nsec, times[2] = s.st_ctim.tv_sec, times[3] = s.st_ctim.tv_nsec;
    usleep(15000);
}
static const char *moved(const char *path)
{
    struct stat s;
    static char text[32];
    if (lstat(path, &s))
        return strerrorname_np(errno);
    snprintf(text, sizeof text, "%s%s", times[0] != s.st_mtim.tv_sec || times[1] != s.st_mtim.tv_nsec ? "mtime " : "",
             times[2] != s.st_ctim.tv_sec || times[3] != s.st_ctim.tv_nsec ? "ctime" : "");
    return text;
}
#define MOVED(path, call) (mark(path), T(call), printf("%d moved %s\n", __LINE__, moved(path)))

static void timing(void)
{
    make("t", "time");
    mkdir("td", 0755);
    int fd = open("t", O_RDWR);
    MOVED("t", write(fd, "x", 1));
    MOVED("t", ftruncate(fd, 2));
    MOVED("t", ftruncate(fd, 2));
    MOVED("t", truncate("t", 7));
    MOVED("t", chmod("t", 0600));
    MOVED("t", fchmod(fd, 0644));
    MOVED("t", chown("t", -1, -1));
    MOVED("t", link("t", "t2"));
    MOVED("t", rename("t2", "t3"));
    MOVED("t", unlink("t3"));
    MOVED("t", open("t", O_RDONLY));
    MOVED("t", open("t", O_WRONLY | O_TRUNC));
    MOVED("t", setxattr("t", "user.a", "b", 1, 0));
    MOVED("t", utimensat(AT_FDCWD, "t", NULL, 0));
    MOVED("td", make("td/x", ""));
    MOVED("td", make("td/x", "again"));
    MOVED("td", rename("td/x", "td/y"));
    MOVED("td", mkdir("td/d", 0700));
    MOVED("td", rmdir("td/d"));
    MOVED("td", unlink("td/y"));
    MOVED("td", chmod("td", 0700));
    struct timespec two[2] = {{1000000000, 5}, {1100000000, 7}};
    struct stat s;
    T(utimensat(AT_FDCWD, "t", two, 0));
    stat("t", &s);
    V(s.st_atim.tv_sec);
    V(s.st_mtim.tv_nsec);
    two[0].tv_nsec = UTIME_OMIT, two[1].tv_sec = 1200000000;
    T(futimens(fd, two));
    fstat(fd, &s);
    V(s.st_atim.tv_sec);
    V(s.st_mtim.tv_sec);
    two[1].tv_nsec = UTIME_OMIT;
    T(utimensat(AT_FDCWD, "t", two, 0));
    T(utimensat(AT_FDCWD, "missing", two, 0));
    two[1].tv_nsec = 1000000000;
    T(utimensat(AT_FDCWD, "t", two, 0));
    struct utimbuf old = {1, 2};
    T(utime("t", &old));
    struct timeval micro[2] = {{3, 4}, {5, 6}};
    T(utimes("t", micro));
    stat("t", &s);
    V(s.st_mtim.tv_nsec);
    T(symlink("t", "tl"));
    two[0].tv_nsec = two[1].tv_nsec = 9, two[1].tv_sec = 77;
    T(utimensat(AT_FDCWD, "tl", two, AT_SYMLINK_NOFOLLOW));
    lstat("tl", &s);
    V(s.st_mtim.tv_sec);
    stat("t", &s);
    V(s.st_mtim.tv_sec);
    close(fd);
}

static void lengths(void)
{
    make("l", "length");
    T(truncate("l", 3));
    S(content("l"));
    T(truncate("l", 5000));
    SHOW("l");
    T(truncate("l", -1));
    T(truncate("d", 1));
    T(truncate("missing", 1));
    T(truncate("dangling", 4));
    SHOW("dangling-target");
    int fd = open("l", O_RDWR);
    T(fallocate(fd, 0, 0, 10000));
    SHOW("l");
    T(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20000));
    SHOW("l");
    T(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    T(posix_fallocate(fd, 0, 30000));
    V(lseek(fd, 0, SEEK_END));
    V(pwrite(fd, "end", 3, 40000));
    V(lseek(fd, 0, SEEK_END));
    T(fsync(fd));
    T(fdatasync(fd));
    T(syncfs(fd));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    close(fd);
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before, limit.rlim_cur = 100;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    T(truncate("l", 200));
    T(truncate("l", 50));
    fd = open("l", O_RDWR);
    T(ftruncate(fd, 200));
    V(pwrite(fd, "xyz", 3, 98));
    V(pwrite(fd, "xyz", 3, 100));
    close(fd);
    setrlimit(RLIMIT_FSIZE, &before);
}

static void owning(void)
{
    umask(027);
    T(make("o", "owner"));
    SHOW("o");
    T(mkdir("od", 0777));
    SHOW("od");
    T(chmod("o", 06755));
    SHOW("o");
    T(chmod("missing", 0));
    T(chmod("dangling", 0600));
    T(fchmodat(AT_FDCWD, "o", 0644, 0));
    T(syscall(452, AT_FDCWD, "o", 0640, 0));
    T(syscall(452, AT_FDCWD, "dangling", 0640, AT_SYMLINK_NOFOLLOW));
    SHOW("o");
    umask(022);
    T(access("o", R_OK | W_OK));
    T(access("o", X_OK));
    T(access("missing", F_OK));
    T(access("o", 8));
    T(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    T(euidaccess("o", R_OK));
    if (geteuid() != 0)
        return;
    T(chmod("o", 06755));
    T(chown("o", 5, 6));
    SHOW("o");
    T(lchown("dangling", 7, 8));
    SHOW("dangling");
    SHOW("dangling-target");
    T(chown("missing", 1, 1));
    T(chmod("od", 02777));
    T(chown("od", 0, 33));
    T(make("od/group", ""));
    SHOW("od/group");
    T(mkdir("od/inherits", 0700));
    SHOW("od/inherits");
    T(mkdir("sticky", 0777));
    T(chmod("sticky", 01777));
    T(make("sticky/root", "root"));
    T(chmod("sticky/root", 0644));
    T(mkdir("closed", 0700));
    T(make("closed/in", "in"));
    T(make("secret", "secret"));
    T(chmod("secret", 0600));
    T(make("group-only", "group"));
    T(chown("group-only", 0, 65534));
    T(chmod("group-only", 0040));
    fflush(stdout);
    if (fork() == 0) {
        if (syscall(SYS_setgroups, 0, NULL) || setgid(65534) || setuid(65534))
            exit(1);
        T(open("secret", O_RDONLY));
        T(open("o", O_RDONLY));
        T(open("o", O_WRONLY));
        T(open("group-only", O_RDONLY));
        T(open("group-only", O_WRONLY));
        T(open("closed/in", O_RDONLY));
        T(open("closed", O_RDONLY));
        T(chdir("closed"));
        T(access("closed/in", F_OK));
        T(unlink("secret"));
        T(open("mine", O_CREAT | O_WRONLY, 0600));
        T(open("sticky/mine", O_CREAT | O_WRONLY, 0600));
        T(unlink("sticky/root"));
        T(rename("sticky/root", "sticky/x"));
        T(rename("sticky/mine", "sticky/root"));
        T(link("sticky/root", "sticky/linked"));
        T(chmod("sticky/root", 0666));
        T(chown("sticky/mine", 0, 0));
        T(chown("sticky/mine", 65534, 65534));
        T(chmod("sticky/mine", 0400));
        T(open("sticky/mine", O_WRONLY));
        T(open("sticky/mine", O_RDONLY));
        T(truncate("sticky/mine", 0));
        T(utimensat(AT_FDCWD, "sticky/root", NULL, 0));
        T(setxattr("sticky/root", "user.a", "b", 1, 0));
        T(mkdir("sticky/dir", 0700));
        T(rmdir("sticky/dir"));
        SHOW("sticky/mine");
        T(unlink("sticky/mine"));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void listing(void)
{
    mkdir("list", 0755);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "list/file-%03d", i);
        make(name, "");
    }
    mkdir("list/dir", 0755);
    symlink("x", "list/link");
    DIR *dir = opendir("list");
    if (!dir)
        return;
    struct dirent *entry;
    char *names[400];
    int count = 0;
    long middle = 0;
    while ((entry = readdir(dir))) {
        char text[300];
        snprintf(text, sizeof text, "%d %s", entry->d_type, entry->d_name);
        names[count++] = strdup(text);
        if (count == 100)
            middle = telldir(dir);
    }
    qsort(names, count, sizeof *names, by_name);
    V(count);
    for (int i = 0; i < count; i += 17)
        S(names[i]);
    rewinddir(dir);
    int again = 0;
    while (readdir(dir))
        again++;
    V(again);
    seekdir(dir, middle);
    again = 0;
    while (readdir(dir))
        again++;
    V(again);
    /* Removing what is listed, as rm -r does. */
    rewinddir(dir);
    int removed = 0;
    while ((entry = readdir(dir)))
        if (entry->d_type == DT_REG)
            removed += unlinkat(dirfd(dir), entry->d_name, 0) == 0;
    V(removed);
    closedir(dir);
    T(rmdir("list"));
    T(rmdir("list/dir"));
    T(unlink("list/link"));
    T(rmdir("list"));
    char buffer[512];
    int fd = open("d", O_RDONLY);
    V(syscall(SYS_getdents64, fd, buffer, 4));
    V(syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 0);
    V(syscall(SYS_getdents64, open("new", O_RDONLY), buffer, sizeof buffer));
    V(syscall(SYS_getdents64, -1, buffer, sizeof buffer));
}

static const char *here(void)
{
    static char path[4096];
    if (!getcwd(path, sizeof path))
        return strerrorname_np(errno);
    return strncmp(path, top, strlen(top)) ? path : path + strlen(top);
}

static void moving(void)
{
    char small[2], path[4096], target[4096];
    T(mkdir("m", 0755));
    T(mkdir("m/n", 0755));
    T(make("m/n/file", "in n"));
    int m = open("m", O_RDONLY | O_DIRECTORY), n = open("m/n", O_RDONLY);
    S(here());
    V(syscall(SYS_getcwd, small, 2));
    T(chdir("missing"));
    T(chdir("new"));
    T(chdir("m/n"));
    S(here());
    if (n < 0)
        return;
    S(content("file"));
    S(content("../n/file"));
    V(readlink("/proc/self/cwd", target, sizeof target) > 0);
    snprintf(path, sizeof path, "/proc/self/cwd/file");
    S(content(path));
    T(chdir(".."));
    S(here());
    T(fchdir(n));
    S(here());
    T(rename("../../m", "../../moved"));
    S(here());
    S(content("file"));
    S(content("../n/file"));
    T(openat(m, "n/file", O_RDONLY));
    T(openat(n, "file", O_RDONLY));
    T(openat(n, "../../moved/n/file", O_RDONLY));
    T(openat(n, "new", O_CREAT | O_WRONLY, 0600));
    T(mkdirat(n, "made", 0700));
    T(unlinkat(n, "made", AT_REMOVEDIR));
    T(unlinkat(n, "new", 0));
    snprintf(path, sizeof path, "/proc/self/fd/%d", n);
    memset(target, 0, sizeof target);
    T(readlink(path, target, sizeof target - 1));
    S(target + strlen(top));
    snprintf(path, sizeof path, "/proc/self/fd/%d/file", n);
    S(content(path));
    T(fchdir(m));
    T(unlink("n/file"));
    T(rmdir("n"));
    struct stat s;
    T(fstat(n, &s));
    V(s.st_nlink);
    T(openat(n, "x", O_CREAT | O_WRONLY, 0600));
    T(openat(n, ".", O_RDONLY));
    T(mkdirat(n, "x", 0600));
    V(syscall(SYS_getdents64, n, target, sizeof target));
    T(fchdir(n));
    S(here());
    T(open("x", O_RDONLY));
    T(chdir(".."));
    S(here());
    T(fchdir(open("/dev/null", O_RDONLY)));
    T(fchdir(-1));
    T(openat(open("/dev/null", O_RDONLY), "x", O_RDONLY));
    T(openat(-1, "x", O_RDONLY));
    T(openat(-1, "/dev/null", O_RDONLY));
    T(chdir(top));
    close(m), close(n);
    /* A child has the directory of its parent. */
    T(chdir("moved"));
    fflush(stdout);
    if (fork() == 0) {
        S(here());
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    T(chdir(top));
}

static void attributes(void)
{
    char value[64];
    make("x", "");
    V(setxattr("x", "user.one", "value", 5, 0));
    V(getxattr("x", "user.one", value, sizeof value));
    V(getxattr("x", "user.one", value, 2));
    V(getxattr("x", "user.one", NULL, 0));
    V(getxattr("x", "user.two", value, sizeof value));
    V(setxattr("x", "user.one", "v", 1, XATTR_CREATE));
    V(setxattr("x", "user.two", "v", 1, XATTR_REPLACE));
    V(setxattr("x", "user.two", "", 0, XATTR_CREATE));
    V(setxattr("x", "user.two", "", 0, 7));
    V(setxattr("x", "strange.two", "v", 1, 0));
    V(setxattr("x", "", "v", 1, 0));
    V(lsetxattr("dangling", "user.one", "v", 1, 0));
    V(removexattr("x", "user.two"));
    V(removexattr("x", "user.two"));
    int fd = open("x", O_RDONLY);
    V(fgetxattr(fd, "user.one", value, sizeof value));
    V(fsetxattr(fd, "user.three", "33", 2, 0));
    V(fremovexattr(fd, "user.one"));
    V(flistxattr(fd, value, sizeof value) > 0);
    V(listxattr("missing", value, sizeof value));
    close(fd);
    V(setxattr("d", "user.directory", "v", 1, 0));
}

static int in_child(int (*work)(int), int fd)
{
    int status;
    fflush(stdout);
    if (fork() == 0)
        _exit(work(fd));
    wait(&status);
    return WEXITSTATUS(status);
}
static int takes_flock(int unused)
{
    (void)unused;
    return flock(open("lock", O_RDWR), LOCK_EX | LOCK_NB) ? errno : 0;
}
static int takes_lock(int unused)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    (void)unused;
    return fcntl(open("lock", O_RDWR), F_SETLK, &lock) ? errno : 0;
}
static int takes_directory(int unused)
{
    (void)unused;
    return flock(open("d", O_RDONLY), LOCK_EX | LOCK_NB) ? errno : 0;
}

static void sharing(void)
{
    make("lock", "0123456789");
    int fd = open("lock", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 5};
    T(flock(fd, LOCK_EX));
    V(in_child(takes_flock, 0));
    T(flock(fd, LOCK_UN));
    V(in_child(takes_flock, 0));
    T(fcntl(fd, F_SETLK, &lock));
    V(in_child(takes_lock, 0));
    lock.l_type = F_UNLCK;
    T(fcntl(fd, F_SETLK, &lock));
    V(in_child(takes_lock, 0));
    lock.l_type = F_WRLCK, lock.l_pid = 0;
    T(fcntl(fd, F_OFD_SETLK, &lock));
    int dir = open("d", O_RDONLY);
    T(flock(dir, LOCK_EX));
    V(in_child(takes_directory, 0));
    close(dir);
    V(in_child(takes_directory, 0));

    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    V(shared != MAP_FAILED && private != MAP_FAILED);
    if (shared == MAP_FAILED)
        return;
    shared[0] = 'S', private[1] = 'P';
    S(content("lock"));
    fflush(stdout);
    if (fork() == 0) {
        int own = open("lock", O_RDWR);
        pwrite(own, "child", 5, 3);
        _exit(0);
    }
    wait(NULL);
    V(strncmp(shared, "S12child89", 10));
    munmap(shared, 4096), munmap(private, 4096);
    int reads = open("lock", O_RDONLY);
    V(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, reads, 0) == MAP_FAILED);
    V(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, reads, 0) != MAP_FAILED);

    int out = open("out", O_CREAT | O_RDWR, 0644);
    V(sendfile(out, reads, NULL, 5));
    loff_t from = 2, to = 20;
    V(copy_file_range(reads, &from, out, &to, 4, 0));
    int pipes[2];
    pipe(pipes);
    from = 0;
    V(splice(reads, &from, pipes[1], NULL, 4, 0));
    V(splice(pipes[0], NULL, out, NULL, 4, 0));
    V(lseek(out, 0, SEEK_END));
    lseek(out, 0, SEEK_SET);
    V(lseek(out, 0, SEEK_HOLE) >= 0);
    S(content("out"));
    char own[64];
    snprintf(own, sizeof own, "/proc/self/fd/%d", reads);
    int again = open(own, O_RDWR);
    V(pwrite(again, "again", 5, 0));
    S(content("lock"));
}

static void *opens_writer(void)
{
    int fd = open("fifo", O_WRONLY);
    write(fd, "through", 7);
    close(fd);
    return NULL;
}

static int address(struct sockaddr_un *where, const char *path)
{
    memset(where, 0, sizeof *where);
    where->sun_family = AF_UNIX;
    strcpy(where->sun_path, path);
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}

static void special(void)
{
    char text[64] = "";
    umask(0);
    T(mkfifo("fifo", 0644));
    T(mkfifo("fifo", 0644));
    SHOW("fifo");
    T(open("fifo", O_WRONLY | O_NONBLOCK));
    int fd = open("fifo", O_RDONLY | O_NONBLOCK);
    struct stat s;
    V(fd >= 0);
    T(fstat(fd, &s));
    V(fd >= 0 && S_ISFIFO(s.st_mode));
    V(agree("fifo", fd));
    V(read(fd, text, sizeof text));
    close(fd);
    for (int late = 0; late < 2 && fd >= 0; late++) {
        fflush(stdout);
        if (fork() == 0) {
            if (late)
                usleep(50000);
            opens_writer();
            _exit(0);
        }
        if (!late)
            usleep(50000);
        fd = open("fifo", O_RDONLY);
        long count = read(fd, text, sizeof text - 1);
        text[count < 0 ? 0 : count] = 0;
        S(text);
        V(read(fd, text, 1));
        close(fd);
        wait(NULL);
    }
    T(unlink("fifo"));

    struct sockaddr_un where, seen;
    int length = address(&where, "socket"), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    umask(022);
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(bind(listener, (void *)&where, length));
    SHOW("socket");
    T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    if (lstat("socket", &s))
        return;
    T(listen(listener, 5));
    socklen_t size = sizeof seen;
    T(getsockname(listener, (void *)&seen, &size));
    S(seen.sun_path);
    V(size);
    fflush(stdout);
    if (fork() == 0) {
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(client, (void *)&where, length);
        write(client, "hello", 5);
        _exit(0);
    }
    int accepted = accept(listener, NULL, NULL);
    long count = read(accepted, text, sizeof text - 1);
    text[count < 0 ? 0 : count] = 0;
    S(text);
    wait(NULL);
    T(open("socket", O_RDONLY));
    T(rename("socket", "renamed"));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "renamed");
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(connect(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&where, length));
    T(unlink("renamed"));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    close(listener);
    length = address(&where, "new");
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "missing/socket");
    T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "datagram");
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    T(bind(receiver, (void *)&where, length));
    V(sendto(sender, "packet", 6, 0, (void *)&where, length));
    V(read(receiver, text, sizeof text));
    close(receiver);
    V(sendto(sender, "packet", 6, 0, (void *)&where, length));
    T(mknod("node-socket", S_IFSOCK | 0600, 0));
    SHOW("node-socket");
}

static void watching(void)
{
    make("watched", "");
    int queue = inotify_init1(IN_NONBLOCK);
    T(inotify_add_watch(queue, "watched", IN_MODIFY | IN_CLOSE_WRITE));
    T(inotify_add_watch(queue, "missing", IN_MODIFY));
    make("watched", "now");
    char events[4096];
    long count = read(queue, events, sizeof events);
    unsigned mask = 0;
    for (long at = 0; at < count; at += sizeof(struct inotify_event) + ((struct inotify_event *)(events + at))->len)
        mask |= ((struct inotify_event *)(events + at))->mask;
    V(mask & (IN_MODIFY | IN_CLOSE_WRITE));
    struct statfs space;
    T(statfs(".", &space));
    V(space.f_bavail > 0);
    int fd = open("watched", O_RDONLY);
    T(fstatfs(fd, &space));
    V(space.f_bavail > 0);
    T(statfs("missing", &space));
}

/* A file against a model of it, by random calls. */
static void random_calls(unsigned seed, int rounds)
{
    enum { SIZE = 200000 };
    static char model[SIZE], buffer[SIZE];
    long length = 0;
    int fd = open("random", O_CREAT | O_RDWR | O_TRUNC, 0644);
    memset(model, 0, sizeof model);
    for (int i = 0; i < rounds; i++) {
        long at = rand_r(&seed) % SIZE, count = rand_r(&seed) % (SIZE - at);
        const char *what = "";
        struct stat s;
        switch (rand_r(&seed) % 8) {
        case 0:
        case 1:
            what = "write";
            memset(buffer, rand_r(&seed), count);
            if (pwrite(fd, buffer, count, at) != count)
                goto bad;
            if (count) {
                memcpy(model + at, buffer, count);
                length = at + count > length ? at + count : length;
            }
            break;
        case 2:
            what = "ftruncate";
            if (ftruncate(fd, at))
                goto bad;
            memset(model + at, 0, SIZE - at);
            length = at;
            break;
        case 3:
            what = "truncate";
            if (truncate("random", at))
                goto bad;
            memset(model + at, 0, SIZE - at);
            length = at;
            break;
        case 4:
            what = "map";
            if (at + count <= length && count) {
                char *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (map == MAP_FAILED)
                    goto bad;
                memset(map + at, i, count);
                memset(model + at, i, count);
                munmap(map, length);
            }
            break;
        case 5:
            what = "reopen";
            close(fd);
            if (rand_r(&seed) % 2 && (rename("random", "random2") || rename("random2", "random")))
                goto bad;
            fd = open("random", O_RDWR);
            break;
        default:
            what = "read";
            long expected = at >= length ? 0 : at + count > length ? length - at : count;
            if (pread(fd, buffer, count, at) != expected || memcmp(buffer, model + at, expected))
                goto bad;
        }
        if (fstat(fd, &s) || s.st_size != length)
            goto bad;
        continue;
    bad:
        printf("random: round %d %s at %ld count %ld length %ld: differs (%s)\n", i, what, at, count, length, strerror(errno));
        return;
    }
    close(fd);
    puts("random: ok");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    top = argv[1], other = argv[2];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    umask(022);
    mkdir(top, 0755);
    if (chdir(top))
        return perror(top), 1;
    opening();
    naming();
    timing();
    lengths();
    owning();
    listing();
    moving();
    attributes();
    sharing();
    special();
    watching();
    random_calls(argc > 3 ? atoi(argv[3]) : 1, argc > 4 ? atoi(argv[4]) : 2000);
    return 0;
}
