/* The limit: how fast this machine starts and collects /bin/true in a session of its own, and nothing else.
 *
 *   limit SECONDS [PROGRAM ARGUMENT…]
 *                     starts per second, four at a time; another program writes to /dev/null
 *   limit -l COUNT    median and 99th percentile of spawn and wait in microseconds, one at a time
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;
static posix_spawnattr_t attributes;
static posix_spawn_file_actions_t *actions, to_null;
static char *just_true[] = {"/bin/true", NULL};
static char **command = just_true;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void start(void)
{
    pid_t pid;
    if (posix_spawn(&pid, command[0], actions, &attributes, command, environ) != 0)
        exit(1);
}

static void collect(void)
{
    if (waitpid(-1, NULL, 0) < 0)
        exit(1);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    if (argc == 3 && strcmp(argv[1], "-l") == 0) {
        int count = atoi(argv[2]);
        double *taken = calloc(count, sizeof *taken);
        for (int i = 0; i < count; i++) {
            double begin = now();
            start();
            collect();
            taken[i] = (now() - begin) * 1e6;
        }
        qsort(taken, count, sizeof *taken, compare);
        printf("%.1f %.1f\n", taken[count / 2], taken[count * 99 / 100]);
        return 0;
    }
    if (argc < 2)
        return 2;
    if (argc > 2) {
        command = argv + 2;
        actions = &to_null;
        posix_spawn_file_actions_init(actions);
        posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_WRONLY, 0);
    }
    double begin = now(), end = begin + atof(argv[1]);
    long done = 0;
    for (int i = 0; i < 4; i++)
        start();
    while (now() < end) {
        collect();
        done++;
        start();
    }
    for (int i = 0; i < 4; i++, done++)
        collect();
    printf("%.1f\n", done / (now() - begin));
    return 0;
}
