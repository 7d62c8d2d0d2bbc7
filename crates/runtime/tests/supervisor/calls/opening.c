/* Opening, and the length of files. */
#include "calls.h"

void opening(void)
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

void lengths(void)
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
