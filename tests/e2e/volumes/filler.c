/* Fills a disk: `filler DIRECTORY` writes files of 256 KiB durably until it can't, says why, makes room, and goes on; then it reads everything. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SIZE = 256 << 10, MOST = 4096 };

static char buffer[SIZE], found[SIZE];

static int put(int number)
{
    char name[32];
    snprintf(name, sizeof name, "file-%d", number);
    memset(buffer, 'a' + number % 26, SIZE);
    memcpy(buffer, &number, sizeof number);
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0)
        return errno;
    int error = write(file, buffer, SIZE) != SIZE || fsync(file) ? errno : 0;
    close(file);
    if (error)
        unlink(name);
    return error;
}

static int holds(int number)
{
    char name[32];
    snprintf(name, sizeof name, "file-%d", number);
    memset(buffer, 'a' + number % 26, SIZE);
    memcpy(buffer, &number, sizeof number);
    int file = open(name, O_RDONLY);
    int same = file >= 0 && read(file, found, SIZE) == SIZE && !memcmp(buffer, found, SIZE);
    close(file);
    return same;
}

int main(int argc, char **argv)
{
    if (argc != 2 || chdir(argv[1]))
        return 2;
    int count = 0, error = 0;
    while (count < MOST && !(error = put(count)))
        count++;
    printf("full: %s, after some: %s\n", strerror(error), count > 8 ? "yes" : "no");
    for (int number = 0; number < count / 2; number++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", number);
        if (unlink(name))
            return 3;
    }
    sync();
    for (int number = 0; number < count / 8; number++)
        if ((error = put(number))) {
            printf("no room for %d of %d: %s\n", number, count / 8, strerror(error));
            return 4;
        }
    for (int number = 0; number < count; number++)
        if ((number < count / 8 || number >= count / 2) && !holds(number)) {
            printf("file %d is not as it was written\n", number);
            return 5;
        }
    printf("sound\n");
}
