/* Threads, signals, forks and execs that call traced functions, and count what they call.
 * torture THREADS ROUNDS FORKS DEPTH COUNTS-FILE
 * Each count is raised right behind its call. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct counts { _Atomic long mallocs, frees, writes, handler_writes, locks, waits, errors; };
static struct counts *counts;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long rounds;
#define NULL_FD 100

static void check(int ok) { if (!ok) counts->errors++; }

static void handler(int signal)
{
    int before = errno;
    (void)signal;
    check(write(NULL_FD, "signal", 6) == 6);
    counts->handler_writes++;
    errno = before;
}

static void work(long times)
{
    for (long i = 0; i < times; i++) {
        errno = 77;
        char *memory = malloc(7000 + i % 100);
        counts->mallocs++;
        check(memory && errno == 77);
        memory[0] = 'x';
        check(write(NULL_FD, memory, 1 + i % 9) == 1 + i % 9);
        counts->writes++;
        check(pthread_mutex_lock(&mutex) == 0);
        counts->locks++;
        pthread_mutex_unlock(&mutex);
        free(memory);
        counts->frees++;
        check(errno == 77);
    }
}

static void *thread(void *unused) { (void)unused; work(rounds); return NULL; }

int main(int argc, char **argv)
{
    if (argc != 6) return 2;
    int threads = atoi(argv[1]), forks = atoi(argv[3]), depth = atoi(argv[4]);
    rounds = atol(argv[2]);
    int file = open(argv[5], O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, sizeof *counts)) return 3;
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int null = open("/dev/null", O_WRONLY);
    if (counts == MAP_FAILED || dup2(null, NULL_FD) < 0) return 4;

    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = { { 0, 300 }, { 0, 300 } };
    setitimer(ITIMER_REAL, &timer, NULL);

    pthread_t others[64];
    for (int i = 0; i < threads; i++) check(pthread_create(&others[i], NULL, thread, NULL) == 0);
    pid_t children[64];
    for (int i = 0; i < forks; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            /* The mutex may be a thread's that is not here. */
            pthread_mutex_init(&mutex, NULL);
            work(rounds / 4);
            if (depth > 0 && i % 3 == 0) {
                char less[16];
                snprintf(less, sizeof less, "%d", depth - 1);
                execl(argv[0], argv[0], argv[1], argv[2], argv[3], less, argv[5], NULL);
                _exit(1);
            }
            if (i % 3 == 1) _exit(0);
            exit(0);
        }
    }
    for (int i = 0; i < forks; i++) {
        int status;
        check(waitpid(children[i], &status, 0) == children[i]);
        counts->waits++;
        check(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    for (int i = 0; i < threads; i++) pthread_join(others[i], NULL);
    return 0;
}
