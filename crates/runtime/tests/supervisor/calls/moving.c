/* Listing and entering directories. */
#include "calls.h"

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void listing(void)
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

void moving(void)
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
