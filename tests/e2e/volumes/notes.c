/* Does what its standard input says: `notes DIRECTORY` reads a line "put NAME TEXT", "get NAME", "add NAME BYTES", "remove NAME", "list" or "end CODE", answers each with one line, and
   goes on. What is put or added is durable when it answers; an error is answered by its name. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *put(const char *name, const char *text, size_t length, int flags)
{
    int file = open(name, O_WRONLY | O_CREAT | flags, 0600);
    if (file < 0)
        return strerrorname_np(errno);
    const char *error = write(file, text, length) != (ssize_t)length || fsync(file) ? strerrorname_np(errno) : "ok";
    close(file);
    return error;
}

static const char *get(const char *name)
{
    static char text[4096];
    int file = open(name, O_RDONLY);
    if (file < 0)
        return strerrorname_np(errno);
    ssize_t length = read(file, text, sizeof text - 1);
    const char *error = length < 0 ? strerrorname_np(errno) : text;
    text[length < 0 ? 0 : length] = 0;
    close(file);
    return error;
}

static const char *list(void)
{
    static char names[65536];
    char *end = names;
    DIR *directory = opendir(".");
    if (!directory)
        return strerrorname_np(errno);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            end += sprintf(end, "%s%s", end == names ? "" : " ", entry->d_name);
    closedir(directory);
    *end = 0;
    return names;
}

int main(int argc, char **argv)
{
    static char line[8192];
    if (argc != 2 || chdir(argv[1]))
        return 2;
    while (fgets(line, sizeof line, stdin)) {
        char *word = strtok(line, " \n"), *name = strtok(NULL, " \n"), *text = strtok(NULL, "\n");
        const char *answer = "?";
        if (!strcmp(word, "put"))
            answer = put(name, text, strlen(text), O_TRUNC);
        if (!strcmp(word, "get"))
            answer = get(name);
        if (!strcmp(word, "add")) {
            char *bytes = malloc(atol(text));
            memset(bytes, 'x', atol(text));
            answer = put(name, bytes, atol(text), O_APPEND);
            free(bytes);
        }
        if (!strcmp(word, "remove"))
            answer = unlink(name) ? strerrorname_np(errno) : "ok";
        if (!strcmp(word, "list"))
            answer = list();
        if (!strcmp(word, "end"))
            return atoi(name);
        printf("%s\n", answer);
        fflush(stdout);
    }
    return 0;
}
