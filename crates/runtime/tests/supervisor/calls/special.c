/* Pipes and sockets. */
#include "calls.h"

static void *opens_writer(void)
{
    int fd = open("fifo", O_WRONLY);
    write(fd, "through", 7);
    close(fd);
    return NULL;
}

static int address(struct sockaddr_un *where, const char *path)
{
    memset(where, 0, sizeof *where);
    where->sun_family = AF_UNIX;
    strcpy(where->sun_path, path);
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}

static volatile int rung;
static void rings(int signal)
{
    (void)signal;
    rung++;
}

void special(void)
{
    char text[64] = "";
    umask(0);
    T(mkfifo("fifo", 0644));
    T(mkfifo("fifo", 0644));
    SHOW("fifo");
    T(open("fifo", O_WRONLY | O_NONBLOCK));
    int fd = open("fifo", O_RDONLY | O_NONBLOCK);
    struct stat s;
    V(fd >= 0);
    T(fstat(fd, &s));
    V(fd >= 0 && S_ISFIFO(s.st_mode));
    V(agree("fifo", fd));
    V(read(fd, text, sizeof text));
    close(fd);
    for (int late = 0; late < 2 && fd >= 0; late++) {
        fflush(stdout);
        if (fork() == 0) {
            if (late)
                usleep(50000);
            opens_writer();
            _exit(0);
        }
        if (!late)
            usleep(50000);
        fd = open("fifo", O_RDONLY);
        long count = read(fd, text, sizeof text - 1);
        text[count < 0 ? 0 : count] = 0;
        S(text);
        V(read(fd, text, 1));
        close(fd);
        wait(NULL);
    }
    struct itimerval soon = {.it_value.tv_usec = 50000};
    for (int restarts = 0; restarts < 2 && lstat("fifo", &s) == 0; restarts++) {
        struct sigaction action = {.sa_handler = rings, .sa_flags = restarts ? SA_RESTART : 0};
        sigaction(SIGALRM, &action, NULL);
        rung = 0;
        fflush(stdout);
        int child = fork();
        if (child == 0) {
            usleep(restarts ? 500000 : 5000000);
            close(open("fifo", O_WRONLY | O_NONBLOCK));
            _exit(0);
        }
        setitimer(ITIMER_REAL, &soon, NULL);
        T(fd = open("fifo", O_RDONLY));
        V(rung);
        close(fd);
        kill(child, SIGKILL);
        wait(NULL);
    }
    signal(SIGALRM, SIG_DFL);
    T(fd = open("fifo", O_PATH));
    V(agree("fifo", fd));
    close(fd);
    T(unlink("fifo"));

    struct sockaddr_un where, seen;
    int length = address(&where, "socket"), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    umask(022);
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(bind(listener, (void *)&where, length));
    SHOW("socket");
    T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    if (lstat("socket", &s))
        return;
    T(listen(listener, 5));
    socklen_t size = sizeof seen;
    T(getsockname(listener, (void *)&seen, &size));
    S(seen.sun_path);
    V(size);
    fflush(stdout);
    if (fork() == 0) {
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(client, (void *)&where, length);
        write(client, "hello", 5);
        _exit(0);
    }
    int accepted = accept(listener, NULL, NULL);
    long count = read(accepted, text, sizeof text - 1);
    text[count < 0 ? 0 : count] = 0;
    S(text);
    wait(NULL);
    T(open("socket", O_RDONLY));
    int held = open("socket", O_PATH);
    V(held >= 0);
    V(agree("socket", held));
    close(held);
    T(rename("socket", "renamed"));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "renamed");
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    T(connect(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&where, length));
    T(unlink("renamed"));
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    close(listener);
    length = address(&where, "new");
    T(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "missing/socket");
    T(bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&where, length));
    length = address(&where, "datagram");
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    T(bind(receiver, (void *)&where, length));
    V(sendto(sender, "packet", 6, 0, (void *)&where, length));
    V(read(receiver, text, sizeof text));

    /* Answers, to the name that comes with a packet. */
    struct sockaddr_un answers;
    int answers_length = address(&answers, "answers");
    T(bind(sender, (void *)&answers, answers_length));
    if (lstat("answers", &s) == 0) {
        struct iovec answer = {"answer", 6};
        struct msghdr message = {.msg_name = &seen, .msg_iov = &answer, .msg_iovlen = 1};
        V(sendto(sender, "question", 8, 0, (void *)&where, length));
        size = sizeof seen;
        V(recvfrom(receiver, text, sizeof text, 0, (void *)&seen, &size));
        V(seen.sun_family == AF_UNIX && seen.sun_path[0] != 0);
        message.msg_namelen = size;
        V(sendto(receiver, "answer", 6, 0, (void *)&seen, size));
        V(read(sender, text, sizeof text));
        V(sendmsg(receiver, &message, 0));
        V(read(sender, text, sizeof text));
        T(connect(receiver, (void *)&seen, size));
        V(write(receiver, "answer", 6));
        V(read(sender, text, sizeof text));
        size = sizeof seen;
        T(getpeername(receiver, (void *)&seen, &size));
        S(seen.sun_path);
        T(unlink("answers"));
        V(sendto(receiver, "answer", 6, 0, (void *)&answers, answers_length));
    }
    close(receiver);
    V(sendto(sender, "packet", 6, 0, (void *)&where, length));
    T(mknod("node-socket", S_IFSOCK | 0600, 0));
    SHOW("node-socket");
}
