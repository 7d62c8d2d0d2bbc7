/* What processes share: locks, mappings, copies in the kernel; and a file against a model of it, by random calls. */
#include "calls.h"

static int in_child(int (*work)(int), int fd)
{
    int status;
    fflush(stdout);
    if (fork() == 0)
        _exit(work(fd));
    wait(&status);
    return WEXITSTATUS(status);
}
static int takes_flock(int unused)
{
    (void)unused;
    return flock(open("lock", O_RDWR), LOCK_EX | LOCK_NB) ? errno : 0;
}
static int takes_lock(int unused)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
    (void)unused;
    return fcntl(open("lock", O_RDWR), F_SETLK, &lock) ? errno : 0;
}
static int takes_directory(int unused)
{
    (void)unused;
    return flock(open("d", O_RDONLY), LOCK_EX | LOCK_NB) ? errno : 0;
}

void sharing(void)
{
    make("lock", "0123456789");
    int fd = open("lock", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 5};
    T(flock(fd, LOCK_EX));
    V(in_child(takes_flock, 0));
    T(flock(fd, LOCK_UN));
    V(in_child(takes_flock, 0));
    T(fcntl(fd, F_SETLK, &lock));
    V(in_child(takes_lock, 0));
    lock.l_type = F_UNLCK;
    T(fcntl(fd, F_SETLK, &lock));
    V(in_child(takes_lock, 0));
    lock.l_type = F_WRLCK, lock.l_pid = 0;
    T(fcntl(fd, F_OFD_SETLK, &lock));
    int dir = open("d", O_RDONLY);
    T(flock(dir, LOCK_EX));
    V(in_child(takes_directory, 0));
    close(dir);
    V(in_child(takes_directory, 0));

    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *private = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    V(shared != MAP_FAILED && private != MAP_FAILED);
    if (shared == MAP_FAILED)
        return;
    shared[0] = 'S', private[1] = 'P';
    S(content("lock"));
    fflush(stdout);
    if (fork() == 0) {
        int own = open("lock", O_RDWR);
        pwrite(own, "child", 5, 3);
        _exit(0);
    }
    wait(NULL);
    V(strncmp(shared, "S12child89", 10));
    munmap(shared, 4096), munmap(private, 4096);
    int reads = open("lock", O_RDONLY);
    V(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, reads, 0) == MAP_FAILED);
    V(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, reads, 0) != MAP_FAILED);

    int out = open("out", O_CREAT | O_RDWR, 0644);
    V(sendfile(out, reads, NULL, 5));
    loff_t from = 2, to = 20;
    V(copy_file_range(reads, &from, out, &to, 4, 0));
    int pipes[2];
    pipe(pipes);
    from = 0;
    V(splice(reads, &from, pipes[1], NULL, 4, 0));
    V(splice(pipes[0], NULL, out, NULL, 4, 0));
    V(lseek(out, 0, SEEK_END));
    lseek(out, 0, SEEK_SET);
    V(lseek(out, 0, SEEK_HOLE) >= 0);
    S(content("out"));
    char own[64];
    snprintf(own, sizeof own, "/proc/self/fd/%d", reads);
    int again = open(own, O_RDWR);
    V(pwrite(again, "again", 5, 0));
    S(content("lock"));
}

/* A file against a model of it, by random calls. */
void random_calls(unsigned seed, int rounds)
{
    enum { SIZE = 200000 };
    static char model[SIZE], buffer[SIZE];
    long length = 0;
    int fd = open("random", O_CREAT | O_RDWR | O_TRUNC, 0644);
    memset(model, 0, sizeof model);
    for (int i = 0; i < rounds; i++) {
        long at = rand_r(&seed) % SIZE, count = rand_r(&seed) % (SIZE - at);
        const char *what = "";
        struct stat s;
        switch (rand_r(&seed) % 8) {
        case 0:
        case 1:
            what = "write";
            memset(buffer, rand_r(&seed), count);
            if (pwrite(fd, buffer, count, at) != count)
                goto bad;
            if (count) {
                memcpy(model + at, buffer, count);
                length = at + count > length ? at + count : length;
            }
            break;
        case 2:
            what = "ftruncate";
            if (ftruncate(fd, at))
                goto bad;
            memset(model + at, 0, SIZE - at);
            length = at;
            break;
        case 3:
            what = "truncate";
            if (truncate("random", at))
                goto bad;
            memset(model + at, 0, SIZE - at);
            length = at;
            break;
        case 4:
            what = "map";
            if (at + count <= length && count) {
                char *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                if (map == MAP_FAILED)
                    goto bad;
                memset(map + at, i, count);
                memset(model + at, i, count);
                munmap(map, length);
            }
            break;
        case 5:
            what = "reopen";
            close(fd);
            if (rand_r(&seed) % 2 && (rename("random", "random2") || rename("random2", "random")))
                goto bad;
            fd = open("random", O_RDWR);
            break;
        default:
            what = "read";
            long expected = at >= length ? 0 : at + count > length ? length - at : count;
            if (pread(fd, buffer, count, at) != expected || memcmp(buffer, model + at, expected))
                goto bad;
        }
        if (fstat(fd, &s) || s.st_size != length)
            goto bad;
        continue;
    bad:
        printf("random: round %d %s at %ld count %ld length %ld: differs (%s)\n", i, what, at, count, length, strerror(errno));
        return;
    }
    close(fd);
    puts("random: ok");
}
