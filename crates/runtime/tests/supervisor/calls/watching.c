/* Watching: what inotify tells of files and directories. */
#include "calls.h"

static int queue, patience = 5000;
/* What was told of since the last end: how often the kernel tells of the same depends on who reads when. */
static struct {
    int wd;
    uint32_t mask;
    char name[32];
} before[64];
static size_t befores;

static int is_news(const struct inotify_event *event)
{
    const char *name = event->len ? event->name : "";
    for (size_t i = 0; i < befores; i++)
        if (before[i].wd == event->wd && before[i].mask == event->mask && strcmp(before[i].name, name) == 0)
            return 0;
    if (befores < 64) {
        before[befores].wd = event->wd, before[befores].mask = event->mask;
        snprintf(before[befores++].name, sizeof before->name, "%s", name);
    }
    return 1;
}

/* What the numbers of watches stand for. */
static const char *watched[16];

static void told(int line, const struct inotify_event *event)
{
    static uint32_t cookie;
    static const struct {
        uint32_t bit;
        const char *name;
    } bits[] = {{IN_ACCESS, "access"}, {IN_MODIFY, "modify"}, {IN_ATTRIB, "attrib"}, {IN_CLOSE_WRITE, "close-write"},
                {IN_CLOSE_NOWRITE, "close-nowrite"}, {IN_OPEN, "open"}, {IN_MOVED_FROM, "moved-from"}, {IN_MOVED_TO, "moved-to"},
                {IN_CREATE, "create"}, {IN_DELETE, "delete"}, {IN_DELETE_SELF, "delete-self"}, {IN_MOVE_SELF, "move-self"},
                {IN_IGNORED, "ignored"}, {IN_Q_OVERFLOW, "overflow"}, {IN_ISDIR, "directory"}};
    printf("%d told of %s %s:", line, event->wd > 0 && event->wd < 16 ? watched[event->wd] : "?", event->len ? event->name : "itself");
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
        if (event->mask & bits[i].bit)
            printf(" %s", bits[i].name);
    if (event->mask & IN_MOVED_FROM)
        cookie = event->cookie;
    if (event->mask & IN_MOVED_TO)
        printf(event->cookie && event->cookie == cookie ? " (of the move before)" : " (from elsewhere)");
    puts("");
}

/* That files themselves are gone: the last one who holds a file decides when, so it is told behind what was told of names. */
static struct inotify_event gone[8];
static size_t gones;

static void take(int line, const struct inotify_event *event)
{
    if (!is_news(event))
        return;
    if (event->mask & (IN_DELETE_SELF | IN_IGNORED) && !event->len && gones < 8)
        memcpy(&gone[gones++], event, sizeof *event);
    else
        told(line, event);
}

/* Reads up to the event of this name and kind; returns whether it came. */
static int until(int line, const char *name, uint32_t what)
{
    static char events[65536];
    struct pollfd ready = {.fd = queue, .events = POLLIN};
    while (poll(&ready, 1, patience) > 0) {
        long count = read(queue, events, sizeof events);
        for (long at = 0; at < count;) {
            struct inotify_event *event = (void *)(events + at);
            at += sizeof *event + event->len;
            int is_end = event->len && strcmp(event->name, name) == 0;
            if (is_end && event->mask & what)
                return at == count ? 1 : -1;
            if (!is_end)
                take(line, event);
        }
    }
    return 0;
}

/* What was told of up to here. A directory that is made and removed in the watched one marks the end. */
static void events(int line)
{
    if (mkdir("w/.end", 0700)) {
        printf("%d no end: %s\n", line, strerrorname_np(errno));
        return;
    }
    befores = 0;
    int began = until(line, ".end", IN_CREATE);
    rmdir("w/.end");
    int ended = until(line, ".end", IN_DELETE);
    for (size_t i = 0; i < gones; i++)
        told(line, &gone[i]);
    gones = 0;
    if (began != 1 || ended != 1)
        printf("%d the end was not told of: %d %d\n", line, began, ended), patience = 10;
}
#define E() events(__LINE__)
/* Makes a call, and tells what was told of it. */
#define TE(call) (T(call), E())

static int watch(const char *path, uint32_t mask)
{
    int number = inotify_add_watch(queue, path, mask);
    if (number > 0 && number < 16)
        watched[number] = path;
    return number;
}

static void contents_of_a_directory(void)
{
    char text[16];
    struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 6}};
    TE(make("w/a", "content"));
    TE(strlen(content("w/a")) - 7);
    TE(chmod("w/a", 0600));
    TE(chown("w/a", 0, 0));
    TE(utimensat(AT_FDCWD, "w/a", times, 0));
    TE(setxattr("w/a", "user.name", "value", 5, 0));
    TE(removexattr("w/a", "user.name"));
    TE(truncate("w/a", 3));
    int fd = open("w/a", O_RDWR | O_TRUNC);
    E();
    V(write(fd, "12345", 5));
    E();
    V(pread(fd, text, 5, 0));
    E();
    TE(ftruncate(fd, 2));
    TE(fchmod(fd, 0640));
    fflush(stdout);
    if (fork() == 0) {
        write(fd, "child", 5);
        _exit(0);
    }
    wait(NULL);
    E();
    close(fd);
    E();
    TE(open("w/a", O_CREAT | O_EXCL, 0600));
    TE(open("w/missing", O_RDONLY));
    fd = open("w/early", O_RDWR);
    V(write(fd, "x", 1));
    close(fd);
    E();
}

static void names_in_a_directory(void)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX, .sun_path = "w/socket"};
    TE(link("w/a", "w/b"));
    TE(symlink("a", "w/link"));
    TE(mkfifo("w/fifo", 0600));
    TE(mknod("w/file", S_IFREG | 0600, 0));
    int bound = socket(AF_UNIX, SOCK_STREAM, 0);
    TE(bind(bound, (void *)&where, sizeof where));
    close(bound);
    TE(mkdir("w/sub", 0755));
    TE(chmod("w/sub", 0700));
    TE(mkdir("w/sub", 0755));
    TE(make("w/sub/deep", "unseen"));
    TE(unlink("w/sub/deep"));
    TE(rename("w/sub", "w/directory"));
    TE(rmdir("w/directory"));
    TE(unlink("w/b"));
    TE(unlink("w/link"));
    TE(unlink("w/fifo"));
    TE(unlink("w/socket"));
    TE(rename("w/file", "w/moved"));
    TE(rename("w/moved", "outside"));
    TE(chmod("outside", 0600));
    TE(rename("outside", "w/back"));
    TE(rename("w/back", "w/a"));
    TE(make("w/other", ""));
    TE(renameat2(AT_FDCWD, "w/a", AT_FDCWD, "w/other", RENAME_EXCHANGE));
    TE(make("w/a", "a"));
    TE(make("w/other", "other"));
    int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    T(fd);
    TE(linkat(AT_FDCWD, path, AT_FDCWD, "w/named", AT_SYMLINK_FOLLOW));
    fd = open("w/other", O_WRONLY);
    T(unlink("w/other"));
    V(write(fd, "gone", 4));
    close(fd);
    E();
}

static void a_file_itself(void)
{
    T(watch("w/a", IN_ALL_EVENTS));
    TE(chmod("w/a", 0600));
    TE(make("w/a", "new"));
    TE(link("w/a", "w/b"));
    TE(rename("w/a", "w/c"));
    TE(chmod("w/c", 0644));
    TE(unlink("w/b"));
    T(unlink("w/c"));
    usleep(600000);
    E();
    make("w/a", "a"), make("w/b", "b");
    E();
    T(watch("w/a", IN_DELETE_SELF));
    int fd = open("w/a", O_RDONLY);
    T(unlink("w/a"));
    close(fd);
    usleep(600000);
    E();
    T(make("w/a", "a"));
    E();
    T(watch("w/a", IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
    T(watch("w/b", IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF));
    T(rename("w/b", "w/a"));
    usleep(600000);
    E();
}

static void how_watches_come_and_go(void)
{
    int number = watch("w/a", IN_ATTRIB);
    V(number > 0);
    V(inotify_add_watch(queue, "w/../w/a", IN_MODIFY) - number);
    TE(chmod("w/a", 0600));
    V(inotify_add_watch(queue, "w/a", IN_ATTRIB | IN_MASK_ADD) - number);
    TE(make("w/a", "more"));
    TE(chmod("w/a", 0640));
    T(inotify_add_watch(queue, "w/a", IN_ATTRIB | IN_MASK_CREATE));
    T(inotify_add_watch(queue, "w/a", IN_ATTRIB | IN_MASK_CREATE | IN_MASK_ADD));
    T(inotify_add_watch(queue, "w/a", IN_ATTRIB | IN_ONLYDIR));
    T(inotify_add_watch(queue, "w/a", 0));
    T(inotify_add_watch(queue, "w/missing", IN_ATTRIB));
    T(inotify_add_watch(queue, "w/a/x", IN_ATTRIB));
    T(inotify_add_watch(queue, "", IN_ATTRIB));
    T(inotify_add_watch(-1, "w/a", IN_ATTRIB));
    T(inotify_add_watch(500, "w/a", IN_ATTRIB));
    T(inotify_add_watch(1, "w/a", IN_ATTRIB));
    T(inotify_rm_watch(queue, 4711));
    T(inotify_rm_watch(1, number));
    T(inotify_rm_watch(-1, number));
    TE(inotify_rm_watch(queue, number));
    T(inotify_rm_watch(queue, number));
    TE(chmod("w/a", 0600));
    T(watch("w/a", IN_ATTRIB | IN_ONESHOT));
    TE(chmod("w/a", 0640));
    TE(chmod("w/a", 0600));
    T(symlink("a", "w/way"));
    T(inotify_add_watch(queue, "w/way", IN_ATTRIB | IN_DONT_FOLLOW | IN_ONLYDIR));
    T(watch("w/way", IN_MODIFY));
    TE(truncate("w/a", 1));
    T(inotify_init1(0x40));
}

void watching(void)
{
    T(queue = inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    V(fcntl(queue, F_GETFD));
    V(fcntl(queue, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    T(mkdir("w", 0755));
    make("w/early", "");
    T(read(queue, (char[512]){0}, 512));
    int number;
    T(number = watch("w", IN_ALL_EVENTS));
    contents_of_a_directory();
    names_in_a_directory();
    a_file_itself();
    how_watches_come_and_go();
    int count;
    T(make("w/a", "unread"));
    struct pollfd ready = {.fd = queue, .events = POLLIN};
    V(poll(&ready, 1, number > 0 ? patience : 0) >= 0);
    V(ioctl(queue, FIONREAD, &count));
    V(count > 0);
    E();
    T(close(inotify_init()));
    int own = inotify_init1(IN_NONBLOCK);
    T(inotify_add_watch(own, "w", IN_CREATE | IN_EXCL_UNLINK));
    T(inotify_add_watch(own, other, IN_DELETE_SELF));
    T(make("w/both", ""));
    ready.fd = own;
    V(poll(&ready, 1, number > 0 ? patience : 0) >= 0);
    V(read(own, (char[4096]){0}, 4096) > 16);
    E();
    close(own);
    T(chmod("w", 0700));
    E();
    T(rename("w", "w2"));
    T(rename("w2", "w"));
    E();
    static const char *const left[] = {"w/a", "w/early", "w/way", "w/named", "w/both"};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++)
        T(unlink(left[i]));
    E();
    T(rmdir("w"));
    patience = 300;
    until(__LINE__, "none", 0);
    T(inotify_rm_watch(queue, number));
    close(queue);

    struct statfs space;
    T(statfs(".", &space));
    V(space.f_bavail > 0);
    int fd = open(".", O_RDONLY);
    T(fstatfs(fd, &space));
    V(space.f_bavail > 0);
    T(statfs("missing", &space));
}
