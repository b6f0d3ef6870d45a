/* An allocator of a program's own: memory that is never freed, and counts of what it was asked for. */
#include <stddef.h>
#include <string.h>
#include <unistd.h>

static _Alignas(16) char memory[64 << 20];
static size_t used;
long asked, freed;

void *malloc(size_t size)
{
    size_t at = __atomic_fetch_add(&used, (size + 31) & ~(size_t)15, __ATOMIC_RELAXED);
    if (at + size + 16 > sizeof memory) return NULL;
    *(size_t *)(memory + at) = size;
    asked++;
    return memory + at + 16;
}
void free(void *pointer) { if (pointer) freed++; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *old, size_t size)
{
    void *new = malloc(size);
    size_t before = old ? ((size_t *)old)[-2] : 0;
    if (old && new) memcpy(new, old, before < size ? before : size);
    return new;
}
