/* Files that are executed can't be written, and those that are open for writing can't be executed. */
#include "calls.h"

/* Makes a file that can be executed in this directory. */
static int copy_of_self(const char *path)
{
    char buffer[65536];
    int from = open("/proc/self/exe", O_RDONLY), to = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0755);
    long count;
    while ((count = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, count) != count)
            return -1;
    close(from);
    return close(to);
}

/* Starts a program that waits until its standard input is closed; returns that, or why it does not start. A path behind an `@` is held, and what is held executed. */
static int start(const char *path, int *process)
{
    int in[2], out[2], error = 0;
    pipe2(in, O_CLOEXEC), pipe2(out, O_CLOEXEC);
    fflush(stdout);
    *process = fork();
    if (*process == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        fcntl(out[1], F_SETFD, 0);
        if (path[0] == '@') {
            char *words[] = {"held", "wait", NULL}, *none[] = {NULL};
            syscall(SYS_execveat, open(path + 1, O_PATH), "", words, none, AT_EMPTY_PATH);
        } else
            execl(path, path, "wait", NULL);
        error = errno;
        write(out[1], &error, sizeof error);
        _exit(1);
    }
    close(in[0]), close(out[1]);
    read(out[0], &error, sizeof error);
    close(out[0]);
    if (error == 0)
        return in[1];
    close(in[1]);
    waitpid(*process, NULL, 0);
    errno = error;
    return -1;
}

static int end(int input, int process)
{
    int status;
    close(input);
    return waitpid(process, &status, 0) == process ? WEXITSTATUS(status) : -1;
}

/* The program that was started. */
int waiting(void)
{
    int none = 0;
    char end;
    write(1, &none, sizeof none);
    close(1);
    read(0, &end, 1);
    return 7;
}

/* Starts and ends it at once. */
static int runs(const char *path)
{
    int process, input = start(path, &process);
    return input < 0 ? -1 : end(input, process);
}

void executing(void)
{
    int first, second, input, other, fd;
    char own[64], *map;
    T(copy_of_self("busy"));
    V(runs("./busy"));
    V(runs("@busy"));
    V(runs("@."));
    T(input = start("./busy", &first));
    T(open("busy", O_WRONLY));
    T(open("busy", O_RDWR));
    T(open("busy", O_WRONLY | O_TRUNC));
    T(open("busy", O_RDONLY | O_TRUNC));
    T(open("busy", O_CREAT | O_WRONLY, 0600));
    T(open("busy", O_CREAT | O_EXCL | O_WRONLY, 0600));
    T(creat("busy", 0600));
    T(truncate("busy", 5));
    T(fd = open("busy", O_RDONLY));
    T(ftruncate(fd, 5));
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    T(open(own, O_RDWR));
    close(fd);
    T(fd = open("busy", O_PATH));
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    T(open(own, O_WRONLY));
    close(fd);
    T(chmod("busy", 0700));
    T(utimensat(AT_FDCWD, "busy", NULL, 0));
    T(link("busy", "busy2"));
    T(open("busy2", O_WRONLY));
    T(rename("busy2", "busy3"));
    T(open("busy3", O_WRONLY));
    T(unlink("busy3"));

    /* By two processes, the first of which ends first. */
    T(other = start("./busy", &second));
    V(end(input, first));
    T(open("busy", O_WRONLY));
    T(input = start("./busy", &first));
    V(end(input, first));
    T(open("busy", O_WRONLY));
    V(end(other, second));
    T(fd = open("busy", O_RDWR));

    /* The other way round. */
    V(runs("./busy"));
    T(open("busy", O_RDONLY));
    V(pwrite(fd, "\177", 1, 0));
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    V(map != MAP_FAILED);
    close(fd);
    V(runs("./busy"));
    munmap(map, 4096);
    V(runs("./busy"));
    T(fd = open("busy", O_WRONLY));
    fflush(stdout);
    if ((second = fork()) == 0) {
        pause();
        _exit(0);
    }
    close(fd);
    V(runs("./busy"));
    kill(second, SIGKILL);
    waitpid(second, NULL, 0);
    V(runs("./busy"));

    /* What was changed in between is what runs. */
    T(fd = open("busy", O_WRONLY));
    V(pwrite(fd, "no", 2, 0));
    close(fd);
    V(runs("./busy"));
    T(fd = open("busy", O_WRONLY));
    V(pwrite(fd, "\177E", 2, 0));
    close(fd);
    V(runs("./busy"));
    T(input = start("./busy", &first));
    T(unlink("busy"));
    T(copy_of_self("busy"));
    V(runs("./busy"));
    T(close(open("busy", O_WRONLY)));
    V(end(input, first));

    /* Scripts and their interpreters. */
    char script[PATH_MAX + 10];
    T(make("script", ""));
    T(chmod("script", 0755));
    fd = open("script", O_WRONLY);
    snprintf(script, sizeof script, "#!%s/busy wait", top);
    V(write(fd, script, strlen(script)) == (long)strlen(script));
    V(runs("./script"));
    close(fd);
    V(runs("./script"));
    V(runs("@script"));
    T(input = start("./script", &first));
    T(close(open("script", O_WRONLY)));
    T(open("busy", O_WRONLY));
    V(end(input, first));
    T(fd = open("busy", O_WRONLY));
    V(runs("./script"));
    close(fd);
    V(runs("./script"));
}
