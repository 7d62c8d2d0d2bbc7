/* Owners, modes and extended attributes. */
#include "calls.h"

void owning(void)
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

void attributes(void)
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
