/* A job for the figures about followers: lines that say when they were written.
 *
 *   lines LENGTH COUNT MICROSECONDS SECONDS [wait]
 *
 * Every so many microseconds it writes so many lines of that length, each beginning with CLOCK_MONOTONIC in
 * nanoseconds, 20 digits, at the moment of the write. With "wait" it begins when something comes on standard input.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static unsigned long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static void write_all(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);
        if (written <= 0)
            exit(1);
        bytes += written;
        length -= written;
    }
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    size_t length = strtoul(argv[1], NULL, 10), count = strtoul(argv[2], NULL, 10);
    unsigned long long step = strtoull(argv[3], NULL, 10) * 1000;
    unsigned long long steps = strtoull(argv[4], NULL, 10) * 1000000000ULL / step;
    char *block = malloc(length * count), stamp[32], byte;
    if (length < 32 || block == NULL)
        return 2;
    if (argc > 5 && read(STDIN_FILENO, &byte, 1) < 0)
        return 1;
    memset(block, 'x', length * count);
    unsigned long long due = now();
    for (unsigned long long number = 0; number < steps; number++) {
        snprintf(stamp, sizeof stamp, "%020llu ", now());
        for (size_t line = 0; line < count; line++) {
            memcpy(block + line * length, stamp, 21);
            block[line * length + length - 1] = '\n';
        }
        write_all(block, length * count);
        due += step;
        struct timespec until = {due / 1000000000ULL, due % 1000000000ULL};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    return 0;
}
