/* Times of single calls, in nanoseconds: `calls COUNT FILE...` prints, for each call, the median of rounds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 9, PASSES = 2 + 21 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

static void open_one(const char *path)
{
    close(open(path, O_RDONLY));
}

static void stat_one(const char *path)
{
    struct stat status;
    stat(path, &status);
}

static void getppid_one(const char *path)
{
    (void)path;
    syscall(SYS_getppid);
}

static void report(const char *name, void (*call)(const char *), const char *path, int count)
{
    double rounds[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now();
        for (int i = 0; i < count; i++)
            call(path);
        rounds[round] = (now() - begin) / count;
    }
    printf("%s %.0f\n", name, median(rounds, ROUNDS));
}

/* The first open of each file and one pass over it, the second one, and the median of those after it. */
static void files(const char *name, const char *path)
{
    static char buffer[1 << 20];
    static double opens[PASSES], reads[PASSES];
    for (int pass = 0; pass < PASSES; pass++) {
        double begin = now();
        int file = open(path, O_RDONLY);
        double opened = now();
        while (read(file, buffer, sizeof buffer) > 0)
            ;
        double done = now();
        close(file);
        opens[pass] = opened - begin;
        reads[pass] = done - opened;
    }
    printf("%s cold-open %.0f\n%s cold-read %.0f\n", name, opens[0], name, reads[0]);
    printf("%s second-open %.0f\n%s second-read %.0f\n", name, opens[1], name, reads[1]);
    printf("%s warm-open %.0f\n%s warm-read %.0f\n", name, median(opens + 2, PASSES - 2), name, median(reads + 2, PASSES - 2));
}

int main(int argc, char **argv)
{
    int count = atoi(argv[1]);
    for (int i = 2; i < argc; i++)
        files(strrchr(argv[i], '/') + 1, argv[i]);
    report("untrapped", getppid_one, "", count * 10);
    report("stat", stat_one, argv[2], count);
    report("stat-missing", stat_one, "/data/missing", count);
    report("stat-host", stat_one, "/proc/version", count);
    report("open-host", open_one, "/dev/null", count);
    report("open", open_one, argv[2], count);
    return 0;
}
