/* Makes every call about files in a directory and prints what came out: the same lines natively and in each writable region, or the region differs.
 *
 * calls DIRECTORY OTHER [SEED [ROUNDS]]: the directory must be empty or missing; OTHER is a directory of another file system.
 * calls DIRECTORY OTHER executing: the calls that need that files there can be executed.
 * calls DIRECTORY OTHER looking: paths of a directory that is not changed.
 * calls wait: what is executed then. */
#include "calls.h"

char *top, *other;

void result(int line, const char *what, long value)
{
    printf("%d %s: %s\n", line, what, value < 0 ? strerrorname_np(errno) : "ok");
}

int make(const char *path, const char *content)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0)
        return -1;
    long count = write(fd, content, strlen(content));
    close(fd);
    return count < 0 ? -1 : 0;
}

const char *content(const char *path)
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
void show(int line, const char *path)
{
    struct stat s;
    if (lstat(path, &s)) {
        printf("%d %s %s\n", line, path, strerrorname_np(errno));
        return;
    }
    printf("%d %s mode %o uid %u gid %u links %lu size %ld\n", line, path, s.st_mode, s.st_uid, s.st_gid,
           S_ISDIR(s.st_mode) ? 0 : (unsigned long)s.st_nlink, S_ISDIR(s.st_mode) ? 0 : (long)s.st_size);
}
/* All ways to look at an open file agree. */
int agree(const char *path, int fd)
{
    struct stat a, b, c;
    struct statx x;
    if (stat(path, &a) || fstat(fd, &b) || fstatat(fd, "", &c, AT_EMPTY_PATH) || statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x))
        return -1;
    a.st_atim = b.st_atim, c.st_atim = b.st_atim;
    return memcmp(&a, &b, sizeof a) == 0 && memcmp(&b, &c, sizeof b) == 0 && x.stx_ino == a.st_ino && x.stx_nlink == a.st_nlink &&
           x.stx_mtime.tv_nsec == a.st_mtim.tv_nsec && x.stx_size == (uint64_t)a.st_size && x.stx_mode == a.st_mode;
}

int same(const char *one, const char *two)
{
    struct stat a, b;
    if (lstat(one, &a) || lstat(two, &b))
        return -1;
    return a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "wait") == 0)
        return waiting();
    if (argc < 3)
        return 2;
    top = argv[1], other = argv[2];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    umask(022);
    mkdir(top, 0755);
    if (chdir(top))
        return perror(top), 1;
    if (argc > 3 && strcmp(argv[3], "executing") == 0)
        return executing(), 0;
    if (argc > 3 && strcmp(argv[3], "looking") == 0)
        return looking(), 0;
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
    holding();
    restricting();
    watching();
    random_calls(argc > 3 ? atoi(argv[3]) : 1, argc > 4 ? atoi(argv[4]) : 2000);
    return 0;
}
