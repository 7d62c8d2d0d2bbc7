/* Descriptors that hold a place and nothing else: O_PATH. */
#include "calls.h"

/* Whether two descriptors show the same file. */
static int same_open(int one, int two)
{
    struct stat a, b;
    if (fstat(one, &a) || fstat(two, &b))
        return -1;
    return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

static void use(int fd)
{
    char text[512];
    struct stat s;
    struct statfs system;
    struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    struct flock lock = {.l_type = F_RDLCK};
    V(read(fd, text, 1));
    V(pread(fd, text, 1, 0));
    V(write(fd, "x", 1));
    V(pwrite(fd, "x", 1, 0));
    V(lseek(fd, 0, SEEK_SET));
    T(ftruncate(fd, 0));
    T(fallocate(fd, 0, 0, 10));
    T(fchmod(fd, 0600));
    T(fchown(fd, -1, -1));
    T(futimens(fd, now));
    V(fgetxattr(fd, "user.none", text, sizeof text));
    V(flistxattr(fd, text, sizeof text));
    T(fsetxattr(fd, "user.none", "x", 1, 0));
    T(fremovexattr(fd, "user.none"));
    T(fsync(fd));
    T(fdatasync(fd));
    T(syncfs(fd));
    T(flock(fd, LOCK_SH | LOCK_NB));
    T(fcntl(fd, F_SETLK, &lock));
    T(fcntl(fd, F_SETFL, O_NONBLOCK));
    T(ioctl(fd, FIONREAD, &s));
    V(syscall(SYS_getdents64, fd, text, sizeof text));
    V(mmap(NULL, 1, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED);
    V(mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED);
    V(sendfile(1, fd, NULL, 1));
    T(posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL));
    T(fstatfs(fd, &system));
}

/* What can be done with a place. */
static void held(const char *path, int flags)
{
    char own[64], text[4096] = "";
    int low = dup(1), pair[2];
    close(low);
    int fd = open(path, O_PATH | flags);
    if (fd < 0) {
        printf("%s is not held: %s\n", path, strerrorname_np(errno));
        return;
    }
    printf("%s is held\n", path);
    V(fd == low);
    V(fcntl(fd, F_GETFD));
    V(fcntl(fd, F_GETFL) & (O_PATH | O_ACCMODE | O_NONBLOCK | O_APPEND));
    if (flags & O_NOFOLLOW) {
        struct stat a, b;
        V(lstat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino && a.st_mode == b.st_mode && a.st_size == b.st_size);
    } else
        V(agree(path, fd));
    use(fd);
    T(fchdir(fd));
    S(content("g"));
    if (chdir(top))
        exit(1);
    T(openat(fd, "g", O_RDONLY));
    T(openat(fd, "missing", O_RDONLY));
    T(openat(fd, "", O_RDONLY));
    T(openat(fd, ".", O_RDONLY));
    T(openat(fd, "..", O_RDONLY | O_DIRECTORY));
    T(mkdirat(fd, "made", 0700));
    T(renameat(fd, "made", fd, "moved"));
    T(unlinkat(fd, "moved", AT_REMOVEDIR));
    V(readlinkat(fd, "", text, sizeof text));
    T(faccessat(fd, "g", R_OK, 0));
    T(syscall(439, fd, "", R_OK, AT_EMPTY_PATH));
    T(fchownat(fd, "", -1, -1, AT_EMPTY_PATH));
    T(syscall(452, fd, "", 0755, AT_EMPTY_PATH));
    T(linkat(fd, "", AT_FDCWD, "linked", AT_EMPTY_PATH));
    T(unlink("linked"));

    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    memset(text, 0, sizeof text);
    V(readlink(own, text, sizeof text) > 0);
    S(text);
    V(same(path, own) >= 0);
    int again = open(own, O_PATH);
    V(same_open(fd, again));
    V(read(again, text, 1));
    close(again);
    T(open(own, O_PATH | O_DIRECTORY));
    T(open(own, O_RDONLY | O_NONBLOCK));
    again = open(own, O_RDONLY | O_NONBLOCK);
    V(again >= 0 && same_open(fd, again));
    close(again);
    T(open(own, O_WRONLY | O_NONBLOCK));
    T(open(own, O_RDONLY | O_DIRECTORY));
    T(open(own, O_RDONLY | O_NOFOLLOW));
    T(access(own, R_OK));
    T(truncate(own, 4));
    T(chmod(own, 0750));
    V(setxattr(own, "user.held", "x", 1, 0));
    SHOW(path);

    /* Copies of the descriptor are the same place. */
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    V(copy);
    V(fcntl(copy, F_GETFL) & O_PATH);
    V(same_open(fd, copy));
    V(dup2(fd, 101));
    T(openat(101, "g", O_RDONLY));
    close(101);
    close(copy);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec byte = {text, 1};
    struct msghdr message = {.msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    V(sendmsg(pair[0], &message, 0));
    V(recvmsg(pair[1], &message, 0));
    memcpy(&copy, CMSG_DATA(&control.header), sizeof copy);
    V(copy != fd && same_open(fd, copy));
    V(read(copy, text, 1));
    close(copy), close(pair[0]), close(pair[1]);
    fflush(stdout);
    if (fork() == 0) {
        close(fd);
        fd = open(path, O_PATH | flags | O_CLOEXEC);
        V(fd == low);
        V(fcntl(fd, F_GETFD));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    T(close(fd));
    T(close(fd));
}

void holding(void)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX, .sun_path = "held-socket"};
    struct stat s;
    char own[64];
    umask(022);
    mkfifo("held-fifo", 0600);
    bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, sizeof where);
    held(".", 0);
    held("d", 0);
    held("d", O_DIRECTORY);
    held("new", 0);
    held("new", O_NOFOLLOW);
    held("way", 0);
    held("way", O_NOFOLLOW);
    held("dangling", O_NOFOLLOW);
    held("held-fifo", 0);
    held("held-socket", 0);
    held("missing", 0);
    held("new/", 0);
    held("new", O_DIRECTORY);
    held("loop", 0);

    /* Where nothing may be changed. */
    int outside = open("/dev/null", O_PATH);
    V(read(outside, own, 1));
    V(agree("/dev/null", outside));
    snprintf(own, sizeof own, "/proc/self/fd/%d", outside);
    V(write(open(own, O_WRONLY), "x", 1));
    close(outside);
    outside = open("/", O_PATH);
    V(agree("/", outside));
    T(openat(outside, "dev/null", O_PATH));
    T(openat(outside, "missing", O_PATH));
    close(outside);

    /* Whatever else is asked for does not count; openat2 refuses it. */
    T(open("missing", O_PATH | O_CREAT, 0600));
    T(open("new", O_PATH | O_CREAT | O_EXCL, 0600));
    T(open("new", O_PATH | O_TRUNC));
    T(open("d", O_PATH | O_RDWR));
    T(open("d", O_PATH | O_TMPFILE));
    SHOW("new");
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW};
    T(syscall(SYS_openat2, AT_FDCWD, "way", &how, sizeof how));
    how.flags = O_PATH | O_RDWR;
    T(syscall(SYS_openat2, AT_FDCWD, "new", &how, sizeof how));

    /* A place that has lost its name, while many others come and go. */
    make("held-file", "still here");
    int fd = open("held-file", O_PATH), directory = -1;
    T(unlink("held-file"));
    if (fd < 0)
        return;
    for (int i = 0; i < 600; i++) {
        snprintf(own, sizeof own, "held-%d", i);
        make(own, "gone");
        close(open(own, O_PATH));
        unlink(own);
    }
    make("held-file", "another one");
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    T(fstat(fd, &s));
    V(s.st_nlink);
    V(s.st_size);
    S(content(own));
    T(open(own, O_RDWR));
    T(linkat(AT_FDCWD, own, AT_FDCWD, "held-again", AT_SYMLINK_FOLLOW));
    T(linkat(fd, "", AT_FDCWD, "held-again", AT_EMPTY_PATH));
    V(same("held-file", own));
    close(fd);
    T(fd = open("held-nameless", O_CREAT | O_RDWR, 0600));
    V(write(fd, "nameless", 8));
    T(unlink("held-nameless"));
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    int nameless = open(own, O_PATH);
    close(fd);
    usleep(500000);
    snprintf(own, sizeof own, "/proc/self/fd/%d", nameless);
    T(fstat(nameless, &s));
    V(s.st_size);
    S(content(own));
    close(nameless);
    mkdir("held-directory", 0700);
    T(directory = open("held-directory", O_PATH));
    T(rename("held-directory", "held-renamed"));
    T(close(openat(directory, "in", O_CREAT | O_WRONLY, 0600)));
    SHOW("held-renamed/in");
    T(unlinkat(directory, "in", 0));
    T(rmdir("held-renamed"));
    T(openat(directory, "in", O_CREAT | O_WRONLY, 0600));
    T(fstat(directory, &s));
    V(s.st_nlink);
    close(directory);

    if (chmod(".", 0755))
        exit(1);

    /* Who may not read may hold, if the way there is free. */
    if (geteuid() != 0)
        return;
    make("held-secret", "secret");
    chmod("held-secret", 0);
    mkdir("held-closed", 0700);
    make("held-closed/in", "in");
    fflush(stdout);
    if (fork() == 0) {
        if (syscall(SYS_setgroups, 0, NULL) || setgid(65534) || setuid(65534))
            exit(1);
        T(fd = open("held-secret", O_PATH));
        snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
        T(fstat(fd, &s));
        T(open(own, O_RDONLY));
        T(fd = open("held-closed", O_PATH));
        T(openat(fd, "in", O_RDONLY));
        T(fchdir(fd));
        T(open("held-closed/in", O_PATH));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
}
