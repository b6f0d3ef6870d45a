/* What programs do that a library between them and the C library must bear. traps NAME [FILE]; 0 where all went as it does
 * without the library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "%d: %s\n", __LINE__, #condition); exit(1); } } while (0)

static int is_cleaned;
static void clean(void *unused) { (void)unused; is_cleaned++; }
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int pipe_ends[2];
static pthread_barrier_t ready;

static void *wait_in_read(void *unused)
{
    char byte;
    pthread_cleanup_push(clean, unused);
    pthread_barrier_wait(&ready);
    read(pipe_ends[0], &byte, 1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void unlock(void *unused) { clean(unused); pthread_mutex_unlock(&mutex); }

static void *wait_for_cond(void *unused)
{
    pthread_mutex_lock(&mutex);
    pthread_cleanup_push(unlock, unused);
    pthread_barrier_wait(&ready);
    for (;;) pthread_cond_wait(&cond, &mutex);
    pthread_cleanup_pop(1);
    return NULL;
}

static void *wait_in_poll(void *unused)
{
    pthread_cleanup_push(clean, unused);
    pthread_barrier_wait(&ready);
    poll(NULL, 0, -1);
    pthread_cleanup_pop(0);
    return NULL;
}

static int cancel(void)
{
    void *(*waits[])(void *) = { wait_in_read, wait_for_cond, wait_in_poll };
    CHECK(pipe(pipe_ends) == 0);
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        void *result;
        pthread_barrier_init(&ready, NULL, 2);
        CHECK(pthread_create(&thread, NULL, waits[i], NULL) == 0);
        pthread_barrier_wait(&ready);
        CHECK(pthread_cancel(thread) == 0);
        CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
        CHECK(is_cleaned == i + 1);
    }
    CHECK(pthread_mutex_lock(&mutex) == 0);
    return 0;
}

static int use_null(void *unused)
{
    (void)unused;
    close(open("/dev/null", O_RDONLY));
    _exit(7);
}

static int children(char **argv)
{
    /* A child of vfork shares our memory and may only make a few calls; what it opens is not traced. */
    for (volatile int i = 0; i < 20; i++) {
        pid_t child = vfork();
        CHECK(child >= 0);
        if (child == 0) {
            int fd = open("/dev/null", O_RDONLY);
            close(fd);
            if (i % 2) _exit(7);
            execl(argv[0], argv[0], "seven", NULL);
            _exit(1);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        int fd = open("/dev/zero", O_RDONLY);
        CHECK(fd >= 0 && close(fd) == 0);
    }
    /* So may a child of clone, whether or not we wait for it. */
    for (int i = 0; i < 20; i++) {
        char *stack = malloc(1 << 16);
        int status;
        pid_t child = clone(use_null, stack + (1 << 16), CLONE_VM | CLONE_VFORK | SIGCHLD, stack);
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        free(stack);
    }
    CHECK(clone(use_null, NULL, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL) == -1 && errno == EINVAL);
    CHECK(system("exit 3") == 3 << 8);
    FILE *pipe = popen("echo five", "r");
    char line[16];
    CHECK(pipe && fgets(line, sizeof line, pipe) && strcmp(line, "five\n") == 0 && pclose(pipe) == 0);
    return 0;
}

static sigjmp_buf back;
static void jump(int signal) { siglongjmp(back, signal); }

static int jumps(void)
{
    struct sigaction action = { .sa_handler = jump };
    char byte;
    CHECK(sigaction(SIGALRM, &action, NULL) == 0 && pipe(pipe_ends) == 0);
    for (volatile int i = 0; i < 50; i++) {
        if (sigsetjmp(back, 1) == 0) {
            struct itimerval timer = { { 0, 0 }, { 0, 500 } };
            setitimer(ITIMER_REAL, &timer, NULL);
            for (;;) CHECK(read(pipe_ends[0], &byte, 1) < 0);
        }
        /* The thread goes on as before. */
        free(malloc(7777));
    }
    return 0;
}

static int errors(void)
{
    char *volatile nowhere = (char *)8;
    CHECK(open(nowhere, O_RDONLY) == -1 && errno == EFAULT);
    CHECK(openat(AT_FDCWD, nowhere, O_RDONLY) == -1 && errno == EFAULT);
    CHECK(open("/no/such/file", O_RDONLY) == -1 && errno == ENOENT);
    char byte;
    CHECK(read(-1, &byte, 1) == -1 && errno == EBADF);
    CHECK(connect(0, (struct sockaddr *)nowhere, 16) == -1);
    CHECK(writev(1, (struct iovec *)nowhere, 3) == -1 && errno == EFAULT);
    /* Errors that are found before the argument is looked at. */
    struct sockaddr *no_address = (struct sockaddr *)nowhere;
    CHECK(connect(-1, no_address, 16) == -1 && errno == EBADF);
    CHECK(bind(-1, no_address, 16) == -1 && errno == EBADF);
    int file = open("/dev/null", O_RDWR), datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
    CHECK(bind(file, no_address, 16) == -1 && errno == ENOTSOCK);
    CHECK(sendto(file, "x", 1, 0, no_address, 16) == -1 && errno == ENOTSOCK);
    CHECK(connect(datagrams, no_address, 4000) == -1 && errno == EINVAL);
    CHECK(sendto(datagrams, "x", 1, 0, no_address, 4000) == -1 && errno == EINVAL);
    CHECK(open(nowhere, O_TMPFILE | O_RDONLY, 0600) == -1 && (errno == EINVAL || errno == EFAULT));
    CHECK(clock_nanosleep(99, 0, (struct timespec *)nowhere, NULL) == EINVAL);
    close(file);
    close(datagrams);
    CHECK(nanosleep((struct timespec *)nowhere, NULL) == -1 && errno == EFAULT);
    CHECK(malloc(PTRDIFF_MAX) == NULL && errno == ENOMEM);
    void *place = NULL;
    errno = 5;
    CHECK(posix_memalign(&place, 3, 8) == EINVAL && errno == 5);
    CHECK(pthread_mutex_trylock(&mutex) == 0 && pthread_mutex_trylock(&mutex) == EBUSY && errno == 5);
    CHECK(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/no/such/socket" };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == -1 && errno == ENOENT);
    close(fd);
    fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    CHECK(fd < 0 || (fcntl(fd, F_GETFD) >= 0 && close(fd) == 0));
    return 0;
}

static int descriptors(void)
{
    /* The lowest number is free, as without us, and closing all of them hurts nobody. */
    int first = open("/dev/null", O_RDONLY);
    CHECK(first == 3);
    for (int fd = 3; fd < 1024; fd++) close(fd);
    free(malloc(7777));
    pid_t child = fork();
    if (child == 0) {
        free(malloc(7777));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    return 0;
}

static int libraries(const char *library)
{
    for (int i = 0; i < 20; i++) {
        void *handle = dlopen(library, RTLD_NOW);
        CHECK(handle);
        void *(*use)(void) = (void *(*)(void))dlsym(handle, "use");
        CHECK(use);
        free(use());
        CHECK(dlclose(handle) == 0);
    }
    CHECK(dlopen("/no/such/library.so", RTLD_NOW) == NULL && dlerror());
    return 0;
}

static void leave(int signal) { (void)signal; _exit(9); }

static int ends(void)
{
    signal(SIGALRM, leave);
    alarm(0);
    struct itimerval timer = { { 0, 0 }, { 0, 2000 } };
    setitimer(ITIMER_REAL, &timer, NULL);
    for (;;) free(malloc(7777));
    return 1;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "cancel")) return cancel();
    if (!strcmp(name, "children")) return children(argv);
    if (!strcmp(name, "jumps")) return jumps();
    if (!strcmp(name, "errors")) return errors();
    if (!strcmp(name, "descriptors")) return descriptors();
    if (!strcmp(name, "libraries") && argc > 2) return libraries(argv[2]);
    if (!strcmp(name, "ends")) return ends();
    if (!strcmp(name, "seven")) return 7;
    return 2;
}
