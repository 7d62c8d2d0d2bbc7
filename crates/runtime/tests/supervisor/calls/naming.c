/* Names, and what their changes do to times. */
#include "calls.h"

void naming(void)
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

void timing(void)
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
