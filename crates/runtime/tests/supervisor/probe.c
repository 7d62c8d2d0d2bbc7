/* What the supervisor's tests run under it: each command makes some system calls and prints what came out. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

extern char **environ;

static void say(const char *what, long result)
{
    printf("%s %s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
}

/* stat by path and by descriptor must agree in everything that programs compare. */
static int agree(const char *path)
{
    struct stat a, b, c;
    struct statx x;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || stat(path, &a) || fstat(fd, &b) || syscall(SYS_newfstatat, fd, "", &c, AT_EMPTY_PATH) ||
        statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x))
        return perror(path), 1;
    if (memcmp(&a, &b, sizeof a) || memcmp(&b, &c, sizeof b) || x.stx_ino != a.st_ino || x.stx_size != (unsigned long)a.st_size)
        return puts("differ"), 1;
    printf("%o %u %u %lu %ld %ld %lu\n", a.st_mode, a.st_uid, a.st_gid, (unsigned long)a.st_nlink, (long)a.st_size,
           (long)a.st_mtime, (unsigned long)a.st_ino);
    return 0;
}

static int list(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    if (!dir)
        return perror(path), 1;
    for (int round = 0; round < 2; round++, rewinddir(dir))
        while ((entry = readdir(dir)))
            printf("%d %d %s\n", round, entry->d_type, entry->d_name);
    return closedir(dir);
}

/* Two open files of one directory, moved in turns, keep their own positions; a duplicate shares one. */
static int positions(const char *path)
{
    DIR *first = opendir(path), *second = opendir(path);
    char seen[2][4096] = {"", ""};
    int more = 1;
    char buffer[64];
    while (more) {
        more = 0;
        DIR *dirs[2] = {first, second};
        for (int i = 0; i < 2; i++) {
            long count = syscall(SYS_getdents64, i ? dup(dirfd(dirs[i])) : dirfd(dirs[i]), buffer, sizeof buffer);
            for (long at = 0; at < count; at += *(unsigned short *)(buffer + at + 16)) {
                strcat(strcat(seen[i], buffer + at + 19), " ");
                more = 1;
            }
        }
    }
    printf("%s\n%s\n", seen[0], seen[1]);
    return 0;
}

static volatile int ticks;
static void tick(int signal) { (void)signal, ticks++; }

static int interrupted(const char *path, int restart)
{
    struct sigaction action = {.sa_handler = tick, .sa_flags = restart ? SA_RESTART : 0};
    struct itimerval every = {{0, 1000}, {0, 1000}};
    int good = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    for (int i = 0; i < 2000; i++) {
        int fd = open(path, O_RDONLY);
        /* A signal that comes before the supervisor has taken the call ends it, as it ends calls that wait. */
        while (fd < 0 && errno == EINTR && !restart)
            fd = open(path, O_RDONLY);
        if (fd >= 0) {
            good++;
            close(fd);
        }
    }
    printf("%d %s\n", good, ticks > 5 ? "ticked" : "too fast");
    printf("next descriptor %d\n", dup(0));
    return 0;
}

static char *thread_path;
static void *opens(void *unused)
{
    (void)unused;
    char byte;
    for (int i = 0; i < 300; i++) {
        int fd = open(thread_path, O_RDONLY);
        if (fd < 0 || read(fd, &byte, 1) != 1)
            return (void *)1;
        close(fd);
    }
    return NULL;
}

static int threads(char *path)
{
    pthread_t thread[8];
    void *bad = NULL, *result;
    thread_path = path;
    for (int i = 0; i < 8; i++)
        if (pthread_create(&thread[i], NULL, opens, NULL))
            return puts("no thread"), 1;
    for (int i = 0; i < 8; i++) {
        pthread_join(thread[i], &result);
        bad = bad ? bad : result;
    }
    puts(bad ? "bad" : "ok");
    return 0;
}

/* Starts the program over and over and sends it signals while it starts; nothing but 0 or the signal may come out. */
static char **storm_argv;
static void *storm(void *seed)
{
    unsigned state = (unsigned)(long)seed;
    static const int signals[] = {SIGKILL, SIGTERM, SIGSTOP};
    for (int i = 0; i < 60; i++) {
        int status;
        pid_t child;
        if (posix_spawn(&child, storm_argv[0], NULL, NULL, storm_argv, environ))
            return (void *)1;
        usleep(rand_r(&state) % 4000);
        kill(child, signals[rand_r(&state) % 3]);
        usleep(200);
        kill(child, SIGCONT);
        if (waitpid(child, &status, 0) != child ||
            (WIFEXITED(status) ? WEXITSTATUS(status) != 0 : WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM))
            return (void *)1;
    }
    return NULL;
}

static int storms(char **argv)
{
    pthread_t thread[4];
    void *bad = NULL, *result;
    storm_argv = argv;
    for (long i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, storm, (void *)i);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], &result);
        bad = bad ? bad : result;
    }
    puts(bad ? "bad" : "ok");
    return 0;
}

static char **thread_argv;
static void *execs(void *unused)
{
    (void)unused;
    execv(thread_argv[0], thread_argv);
    perror("execv");
    exit(1);
}

static int finish(pid_t child)
{
    int status;
    waitpid(child, &status, 0);
    printf("child %s %d\n", WIFEXITED(status) ? "exited" : "signalled",
           WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return 0;
}

/* Makes one of everything in a directory, with this text as name and content. */
static void occupy(const char *top, const char *text)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    char path[4096];
    if (chdir(top) || mkdir(text, 0755) || chdir(text))
        exit(1);
    int fd = open(text, O_CREAT | O_RDWR, 0644);
    write(fd, text, strlen(text));
    symlink(text, "link");
    snprintf(path, sizeof path, "fifo-%s", text);
    mkfifo(path, 0600);
    open(path, O_RDWR);
    snprintf(where.sun_path, sizeof where.sun_path, "socket-%s", text);
    if (bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&where, sizeof where))
        exit(1);
    puts("ready");
    pause();
}

/* Makes and removes files and directories, many of them while they are open. */
static void churn(const char *top)
{
    char name[64];
    if (chdir(top))
        exit(1);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "file%d", i);
        int fd = open(name, O_CREAT | O_RDWR, 0600);
        if (fd < 0 || write(fd, name, sizeof name) != sizeof name || unlink(name))
            exit(1);
        close(fd);
    }
    for (int i = 0; i < 800; i++) {
        snprintf(name, sizeof name, "directory%d", i);
        if (mkdir(name, 0700))
            exit(1);
        int fd = open(name, O_RDONLY);
        if (fd < 0 || rmdir(name))
            exit(1);
        close(fd);
    }
    usleep(500000);
    puts("ready");
    pause();
}

static int reconnect(const char *path)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    char byte;
    strncpy(where.sun_path, path, sizeof where.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 5))
        return perror("bind"), 1;
    say("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&where, sizeof where));
    read(0, &byte, 1);
    say("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&where, sizeof where));
    return 0;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    char *path = argc > 2 ? argv[2] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(command, "as-nobody")) {
        if (setgid(65534) || setuid(65534))
            return perror("setuid"), 1;
        /* Long enough that nothing which was opened before is still used. */
        usleep(100000);
        if (!strcmp(argv[2], "child")) {
            int status;
            if (fork()) {
                wait(&status);
                return status != 0;
            }
            argv++, argc--;
        }
        command = argv[2], path = argv[3], argv++, argc--;
    }
    if (!strcmp(command, "occupy"))
        return occupy(path, argv[3]), 0;
    if (!strcmp(command, "churn"))
        return churn(path), 0;
    if (!strcmp(command, "reconnect"))
        return reconnect(path);
    if (!strcmp(command, "mode"))
        return chmod(argv[3], strtol(path, NULL, 8)) != 0;
    if (!strcmp(command, "agree"))
        return agree(path);
    if (!strcmp(command, "list"))
        return list(path);
    if (!strcmp(command, "positions"))
        return positions(path);
    if (!strcmp(command, "interrupted"))
        return interrupted(path, argc > 3);
    if (!strcmp(command, "storm"))
        return storms(argv + 2);
    if (!strcmp(command, "threads"))
        return threads(path);
    if (!strcmp(command, "open")) {
        for (int i = 2; i < argc; i++) {
            int fd = open(argv[i], O_RDONLY);
            say(argv[i], fd);
        }
        return 0;
    }
    if (!strcmp(command, "read-only")) {
        char missing[4096];
        snprintf(missing, sizeof missing, "%s-missing", path);
        say("write", open(path, O_WRONLY));
        say("truncate-open", open(path, O_RDONLY | O_TRUNC));
        say("create", open(missing, O_CREAT | O_WRONLY, 0600));
        say("create-exclusive", open(path, O_CREAT | O_EXCL | O_WRONLY, 0600));
        say("directory", open(path, O_DIRECTORY));
        say("mkdir", mkdir(path, 0700));
        say("mkdir-missing", mkdir(missing, 0700));
        say("unlink", unlink(path));
        say("rename", rename(path, missing));
        say("link", link(path, missing));
        say("symlink", symlink("x", missing));
        say("chmod", chmod(path, 0600));
        say("chmod-missing", chmod(missing, 0600));
        say("truncate", truncate(path, 0));
        say("setxattr", setxattr(path, "user.x", "y", 1, 0));
        int fd = open(path, O_RDONLY);
        say("fchmod", fchmod(fd, 0600));
        say("ftruncate", ftruncate(fd, 0));
        char own[64];
        snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
        say("reopen-for-writing", open(own, O_RDWR));
        say("access-write", access(path, W_OK));
        say("utimensat", futimens(fd, NULL));
        return 0;
    }
    if (!strcmp(command, "refused")) {
        say("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
        say("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, NULL, 0));
        say("mount", syscall(SYS_mount, NULL, NULL, NULL, 0, NULL));
        say("unshare", syscall(SYS_unshare, CLONE_NEWNS));
        say("openat2", syscall(SYS_openat2, AT_FDCWD, NULL, NULL, 0));
        say("x32", syscall(0x40000000 | SYS_getpid));
        long answer;
        __asm__ volatile("int $0x80" : "=a"(answer) : "a"(20 /* getpid */) : "memory", "r8", "r9", "r10", "r11");
        errno = -answer;
        say("i386", answer < 0 ? -1 : answer);
        return 0;
    }
    if (!strcmp(command, "map")) {
        for (int i = 2; i < argc; i++) {
            int fd = !strcmp(argv[i], "memory") ? memfd_create("m", 0) : open(argv[i], O_RDONLY);
            if (!strcmp(argv[i], "memory"))
                ftruncate(fd, 4096);
            say(argv[i], mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
        }
        say("anonymous", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        return 0;
    }
    if (!strcmp(command, "fork")) {
        pid_t child = fork();
        if (child == 0)
            _exit(7);
        return child < 0 ? say("fork", -1), 0 : finish(child);
    }
    if (!strcmp(command, "vfork")) {
        pid_t child = vfork();
        if (child == 0) {
            execv(argv[2], argv + 2);
            _exit(errno);
        }
        return finish(child);
    }
    if (!strcmp(command, "spawn")) {
        pid_t child;
        int error = posix_spawn(&child, argv[2], NULL, NULL, argv + 2, environ);
        return error ? errno = error, say("spawn", -1), 0 : finish(child);
    }
    if (!strcmp(command, "crowded")) {
        /* More descriptors in use than the limit allows from now on. */
        struct rlimit limit;
        while (fcntl(0, F_DUPFD_CLOEXEC, 0) < 70)
            ;
        getrlimit(RLIMIT_NOFILE, &limit);
        limit.rlim_cur = 20;
        setrlimit(RLIMIT_NOFILE, &limit);
        execv(argv[2], argv + 2);
        say("exec", -1);
        return 1;
    }
    if (!strcmp(command, "limit")) {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        printf("%lu\n", (unsigned long)limit.rlim_cur);
        return 0;
    }
    if (!strcmp(command, "exec")) {
        execv(argv[2], argv + 2);
        say("exec", -1);
        printf("next descriptor %d\n", dup(0));
        return 0;
    }
    if (!strcmp(command, "thread-exec")) {
        pthread_t thread;
        thread_argv = argv + 2;
        pthread_create(&thread, NULL, execs, NULL);
        pause();
    }
    if (!strcmp(command, "identity")) {
        char exe[4096] = "", own[4096] = "", link[64], name[64] = "";
        readlink("/proc/self/exe", exe, sizeof exe - 1);
        int fd = open(path, O_RDONLY);
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        readlink(link, own, sizeof own - 1);
        FILE *comm = fopen("/proc/self/comm", "r");
        printf("exe %s\nfd %s\ncomm %s", exe, own, comm && fgets(name, sizeof name, comm) ? name : "none\n");
        printf("argv %s\ndescriptor %d\n", argv[0], fd);
        return 0;
    }
    if (!strcmp(command, "chdir")) {
        char cwd[4096];
        say("chdir", chdir(path));
        printf("cwd %s\n", getcwd(cwd, sizeof cwd));
        for (int i = 3; i < argc; i++)
            say(argv[i], open(argv[i], O_RDONLY));
        return 0;
    }
    if (!strcmp(command, "relative")) {
        int fd = open(path, O_RDONLY | O_DIRECTORY);
        say(argv[3], openat(fd, argv[3], O_RDONLY));
        say("fchdir", fchdir(fd));
        say(argv[3], open(argv[3], O_RDONLY));
        return 0;
    }
    if (!strcmp(command, "signal")) {
        raise(atoi(path));
        pause();
    }
    if (!strcmp(command, "sleep")) {
        struct sigaction action = {.sa_handler = tick};
        sigaction(SIGTERM, &action, NULL);
        puts("ready");
        while (!ticks)
            pause();
        return 42;
    }
    if (!strcmp(command, "orphan")) {
        if (fork() == 0) {
            if (fork() == 0) {
                usleep(100000);
                _exit(0);
            }
            _exit(0);
        }
        wait(NULL);
        usleep(300000);
        printf("left %d\n", waitpid(-1, NULL, WNOHANG));
        if (fork() == 0) {
            for (;;)
                pause();
        }
        return 0;
    }
    if (!strcmp(command, "exit"))
        return atoi(path);
    fprintf(stderr, "unknown command %s\n", command);
    return 99;
}
