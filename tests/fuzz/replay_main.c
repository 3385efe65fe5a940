/* Runs a fuzz target over the files of its corpus, as libFuzzer would, in the ordinary test run.
 * A target fails by crashing or aborting, so one check stands for the whole corpus. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return -1;
    /* The copy has the exact size, so that a sanitizer sees a read past the end. */
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *data = size >= 0 ? malloc((size_t)size + (size == 0)) : NULL;
    int result = -1;
    if (data && fread(data, 1, (size_t)size, file) == (size_t)size) {
        tap_note("%s", name);
        LLVMFuzzerTestOneInput(data, (size_t)size);
        result = 0;
    }
    free(data);
    fclose(file);
    return result;
}

int main(int argc, char **argv)
{
    int replayed_count = 0;
    int unreadable_count = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    DIR *dir = argc > 1 ? opendir(argv[1]) : NULL;
    if (!dir) {
        tap_skip("no corpus at %s", argc > 1 ? argv[1] : "(no argument)");
        return tap_done();
    }
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        if (entry->d_name[0] == '.')
            continue;
        if (replay_file(argv[1], entry->d_name) == 0)
            replayed_count++;
        else
            unreadable_count++;
    }
    closedir(dir);
    tap_ok(unreadable_count == 0, "replayed %d inputs", replayed_count);
    return tap_done();
}
