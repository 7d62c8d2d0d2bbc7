/* openat2 with restrictions on how the path is walked. */
#include "calls.h"

static const struct {
    const char *name;
    uint64_t bits;
} RESTRICTIONS[] = {
    {"none", 0},
    {"no links", RESOLVE_NO_SYMLINKS},
    {"no magic links", RESOLVE_NO_MAGICLINKS},
    {"beneath", RESOLVE_BENEATH},
    {"in root", RESOLVE_IN_ROOT},
    {"no links beneath", RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS},
    {"no magic links in root", RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS},
};

static long open_how(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
        how.mode = 0600;
    return syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* What was opened, and how it begins. */
static void tell(long fd)
{
    struct stat s;
    char text[16] = "";
    if (fd < 0 || fstat(fd, &s)) {
        printf("%s\n", strerrorname_np(errno));
        return;
    }
    if (S_ISREG(s.st_mode) && pread(fd, text, sizeof text - 1, 0) < 0)
        text[0] = 0;
    text[strcspn(text, "\t\n")] = 0;
    printf("type %o, %s\n", s.st_mode & S_IFMT, text);
    close(fd);
}

static void everywhere(int line, int directory, const char *path, uint64_t flags)
{
    for (size_t i = 0; i < sizeof RESTRICTIONS / sizeof *RESTRICTIONS; i++) {
        printf("%d %s, %#lo, %s: ", line, path, (long)flags, RESTRICTIONS[i].name);
        tell(open_how(directory, path, flags, RESTRICTIONS[i].bits));
    }
}

#define LOOK(directory, path) everywhere(__LINE__, directory, path, O_RDONLY)

/* Paths of a tree with these names that is not changed. */
void looking(void)
{
    static const char *const paths[] = {
        "data", "./data", "sub/../data", "sub//one", "sub/", "sub/.", "sub/..", ".", "..", "../app/data", "sub/../../app/data",
        "sub/../..", "/data", "/sub/one", "//", "/..", "/../data", "missing", "missing/x", "sub/missing", "data/", "data/.", "data/..",
        "link", "link/", "link/x", "loop", "loop/x", "mounts", "up", "up/", "", "/",
    };
    int directory = open(".", O_PATH | O_DIRECTORY), sub = open("sub", O_RDONLY | O_DIRECTORY), data = open("data", O_RDONLY);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        LOOK(directory, paths[i]);
        LOOK(AT_FDCWD, paths[i]);
        everywhere(__LINE__, sub, paths[i], O_PATH | O_NOFOLLOW);
        everywhere(__LINE__, directory, paths[i], O_RDONLY | O_DIRECTORY);
    }
    LOOK(sub, "one");
    LOOK(sub, "../data");
    LOOK(data, "x");
    LOOK(-1, "data");
    close(directory), close(sub), close(data);
}

/* How often a directory was left while what is in it was moved out and in. */
static int escapes(int directory)
{
    int count = 0;
    pid_t mover = fork();
    if (mover == 0)
        for (;;)
            rename("r/in/sub", "x/sub"), rename("x/sub", "r/in/sub");
    for (int i = 0; i < 2000; i++) {
        long fd = open_how(directory, "in/sub/../../outside", O_RDONLY, RESOLVE_BENEATH);
        if (fd >= 0)
            count++, close(fd);
    }
    kill(mover, SIGKILL), waitpid(mover, NULL, 0);
    rename("x/sub", "r/in/sub");
    return count;
}

void restricting(void)
{
    mkdir("r", 0755), mkdir("r/in", 0755), mkdir("r/in/sub", 0755), mkdir("x", 0755);
    make("r/in/file", "inside"), make("outside", "outside");
    char target[PATH_MAX];
    snprintf(target, sizeof target, "%s/outside", top);
    symlink(target, "r/absolute"), symlink("../outside", "r/relative"), symlink("in/file", "r/link"), symlink("/in/file", "r/rooted");
    symlink("..", "r/above"), symlink("in/sub/../file", "r/round"), symlink("round", "r/twice"), symlink("in/made", "r/dangling");
    symlink("self", "r/self"), symlink("in", "r/directory");
    int directory = open("r", O_PATH | O_DIRECTORY), fd;
    static const char *const names[] = {
        "in/file", "in/sub/../file", "in/sub/../../in/file", "in/sub/../../../r/in/file", "absolute", "relative", "link", "rooted", "above",
        "above/outside", "round", "twice", "self", "directory", "directory/", "directory/file", "directory/../in/file", "in/file/", "in/file/x",
        "in/nothing", "in/nothing/x", "in/nothing/", "in/nothing/x/", "self/", "dangling/", "in/./file/.", "/in/file", "/absolute", "/rooted", "/../in/file", "..", ".", "", "in/..",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        LOOK(directory, names[i]);
        everywhere(__LINE__, directory, names[i], O_PATH | O_NOFOLLOW);
        everywhere(__LINE__, directory, names[i], O_RDONLY | O_NOFOLLOW);
        everywhere(__LINE__, directory, names[i], O_RDONLY | O_DIRECTORY);
        /* Not in the root. */
        if (names[i][0] != '/')
            everywhere(__LINE__, directory, names[i], O_RDWR | O_CREAT | O_EXCL);
    }
    char name[300];
    memset(name, 'n', sizeof name), name[256] = 0;
    LOOK(directory, name);

    /* What is made. */
    T(open_how(directory, "in/made", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    SHOW("r/in/made");
    T(unlink("r/in/made"));
    T(open_how(directory, "dangling", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    SHOW("r/in/made");
    T(open_how(directory, "in/sub/", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    T(open_how(directory, "in/new/", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    T(open_how(directory, "../made", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    T(open_how(directory, "above/made", O_CREAT | O_RDWR, RESOLVE_BENEATH));
    T(open_how(directory, "../made", O_CREAT | O_RDWR, RESOLVE_IN_ROOT));
    SHOW("made");
    SHOW("r/made");
    T(fd = open_how(directory, "in", O_TMPFILE | O_RDWR, RESOLVE_BENEATH));
    V(write(fd, "x", 1));
    T(open_how(directory, "in/made", O_WRONLY | O_TRUNC, RESOLVE_NO_SYMLINKS));
    SHOW("r/in/made");
    T(open_how(directory, "in/made", O_CREAT | O_WRONLY, RESOLVE_CACHED));

    /* What nobody means. */
    T(open_how(directory, "in/file", O_RDONLY, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    T(open_how(directory, "in/file", O_RDONLY, 0x40));
    T(open_how(directory, "in/file", O_RDONLY, 1UL << 32));

    /* A directory that moves away. */
    V(escapes(directory));
    int sub = open("r/in/sub", O_PATH | O_DIRECTORY);
    T(rename("r/in/sub", "x/sub"));
    make("x/file", "moved");
    LOOK(sub, "../file");
    T(open_how(sub, ".", O_RDONLY, RESOLVE_BENEATH));
    T(open_how(directory, "in/sub", O_RDONLY, RESOLVE_BENEATH));
    close(sub);

    /* Other file systems. */
    T(open_how(directory, "in/../link", O_RDONLY, RESOLVE_NO_XDEV));
    T(open_how(directory, "/proc/version", O_RDONLY, RESOLVE_NO_XDEV));
    T(symlink("/proc/version", "r/version"));
    T(open_how(directory, "version", O_RDONLY, RESOLVE_NO_XDEV));
    LOOK(directory, "version");
    int root = open("/", O_PATH | O_DIRECTORY), proc = open("/proc", O_PATH | O_DIRECTORY);
    LOOK(root, "proc/version");
    LOOK(root, "/proc/version");
    LOOK(root, "..");
    LOOK(root, "dev/null");
    static const char *const processes[] = {
        "version", "self/status", "thread-self/status", "self", "self/exe", "self/cwd", "self/cwd/outside", "self/fd", "net", "..", "self/..",
    };
    for (size_t i = 0; i < sizeof processes / sizeof *processes; i++)
        LOOK(proc, processes[i]);
    snprintf(name, sizeof name, "/proc/self/fd/%d", directory);
    T(open_how(AT_FDCWD, name, O_RDONLY, RESOLVE_NO_MAGICLINKS));
    T(open_how(AT_FDCWD, name, O_RDONLY, RESOLVE_NO_SYMLINKS));
    close(root), close(proc), close(directory);
}
