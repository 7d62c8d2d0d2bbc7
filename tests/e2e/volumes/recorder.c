/* Knows what it was told to be durable: `recorder DIRECTORY SEED` checks what is there, says "found N", then writes records for ever, each into one of
   several ways of making something durable, and says "N" when record N is. A record that was said and is not there, or is not as it was written, ends it with 1. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAYS = 7, SHORT = 3000, LONG = 70000, LONGEST = 600000 };

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

#define MUST(call) ({ long result = (long)(call); if (result < 0) die("%s: %m", #call); result; })

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* What record N is. The longest are most of them more than a volume puts into its database. */
static size_t content(uint64_t number, unsigned char *buffer)
{
    size_t most = number % 37 == 0 ? LONGEST : number % 11 == 0 ? LONG : SHORT;
    size_t length = 8 + mix(number) % (most - 8);
    for (size_t at = 0; at < length; at += 8) {
        uint64_t word = at ? mix(number * 131071 + at) : number;
        memcpy(buffer + at, &word, length - at < 8 ? length - at : 8);
    }
    return length;
}

static void name_of(uint64_t number, char *name)
{
    sprintf(name, "directory-%02d/record-%08lu", (int)(number % 20), (unsigned long)number);
}

static void write_all(int file, const unsigned char *bytes, size_t length)
{
    while (length) {
        long count = MUST(write(file, bytes, length));
        bytes += count;
        length -= count;
    }
}

static void sync_directory(const char *path)
{
    int directory = MUST(open(path, O_RDONLY | O_DIRECTORY));
    MUST(fsync(directory));
    MUST(close(directory));
}

/* Each record is kept in the journal and in a file of its own; the way of making it durable changes. */
static void record(int journal, uint64_t number)
{
    static unsigned char bytes[LONGEST];
    char name[64], above[16], temporary[80];
    size_t length = content(number, bytes);
    int way = number % WAYS;
    name_of(number, name);
    sprintf(above, "%.*s", (int)strcspn(name, "/"), name);
    sprintf(temporary, "%s.part", name);
    const char *made = way == 3 ? temporary : name;
    int flags = O_RDWR | O_CREAT | O_TRUNC | (way == 4 ? O_SYNC : 0) | (way == 5 ? O_DSYNC : 0);
    int file = MUST(open(made, flags, 0600));
    if (way == 2) {
        MUST(ftruncate(file, length));
        void *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (map == MAP_FAILED)
            die("mmap: %m");
        memcpy(map, bytes, length);
        MUST(msync(map, length, MS_SYNC));
        MUST(munmap(map, length));
    } else {
        write_all(file, bytes, length);
    }
    if (way == 0 || way == 3)
        MUST(fsync(file));
    if (way == 1)
        MUST(fdatasync(file));
    if (way == 6)
        MUST(syncfs(file));
    MUST(close(file));
    if (way == 3)
        MUST(rename(temporary, name));
    sync_directory(above);
    MUST(pwrite(journal, &number, 8, number * 8));
    MUST(fdatasync(journal));
}

static void check(uint64_t number)
{
    static unsigned char wanted[LONGEST], found[LONGEST];
    char name[64];
    size_t length = content(number, wanted);
    name_of(number, name);
    int file = open(name, O_RDONLY);
    if (file < 0)
        die("record %lu is lost: %m", (unsigned long)number);
    ssize_t count = read(file, found, sizeof found);
    if (count != (ssize_t)length || memcmp(found, wanted, length))
        die("record %lu is corrupt: %ld bytes, expected %lu", (unsigned long)number, (long)count, (unsigned long)length);
    close(file);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    MUST(chdir(argv[1]));
    int journal = MUST(open("journal", O_RDWR | O_CREAT, 0600));
    for (int at = 0; at < 20; at++) {
        char name[16];
        sprintf(name, "directory-%02d", at);
        if (mkdir(name, 0700) && access(name, F_OK))
            die("%s: %m", name);
    }
    sync_directory(".");
    uint64_t next = 1, stored;
    for (; pread(journal, &stored, 8, next * 8) == 8; next++) {
        if (stored != next)
            die("the journal has %lu in place %lu", (unsigned long)stored, (unsigned long)next);
        /* The last ones are looked at each time, the others, once there are many, now and then. */
    }
    for (uint64_t number = 1; number < next; number++)
        if (next < 2000 || number + 300 > next || number % 37 == next % 37)
            check(number);
    printf("found %lu\n", (unsigned long)(next - 1));
    fflush(stdout);
    for (;; next++) {
        record(journal, next);
        printf("%lu\n", (unsigned long)next);
        fflush(stdout);
    }
}
