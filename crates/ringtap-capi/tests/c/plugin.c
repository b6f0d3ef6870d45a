/* A plug-in that traces: loaded, used and unloaded again and again. */
#include "torture.h"
#include <ringtap.h>

RINGTAP_EVENT(torture, plugin, (u32, slot), (u64, number), (string, why))

__attribute__((visibility("default"))) work_function work;

void work(struct counts *counts, uint32_t slot, uint64_t events)
{
    struct slot *mine = &counts->slot[slot];
    for (uint64_t i = 0; i < events; i++) {
        uint64_t number = __atomic_fetch_add(&mine->begun, 1, __ATOMIC_RELAXED);
        if (RINGTAP_TRY_WRITE(torture, plugin, slot, number, "plugged in") == RINGTAP_OK)
            __atomic_fetch_add(&mine->done, 1, __ATOMIC_RELAXED);
        else
            __atomic_fetch_sub(&mine->begun, 1, __ATOMIC_RELAXED);
    }
}
